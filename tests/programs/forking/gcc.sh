mkdir -p "$1"; cd "$1"
echo 'int printf(const char *, ...); int main(void) { return printf("compiled %d\n", 6 * 7) != 12; }' > t.c
gcc -O2 -Wall -o t t.c && ./t; gcc -pipe -c t.c && gcc t.o -o u && ./u; gcc -E t.c | tail -1
gcc missing.c 2>/dev/null; echo $?
