cp "$2/Makefile.parallel" "$1/Makefile" && cd "$1" && make -s -j4 && make -s -j4 -q; echo $?
