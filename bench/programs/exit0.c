/* A program with nothing to do: the row "static PIE" starts it. */
int main(void) { return 0; }
