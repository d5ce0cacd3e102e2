// expect-status: 139
// A signal that ends the program shows in the status as 128 plus its number.
int main(void) {
    *(volatile int *)16 = 1;
    return 0;
}
