mkdir -p "$1"; cd "$1"
export HOME="$1" GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=b
export GIT_AUTHOR_DATE=2020-01-01T00:00:00Z GIT_COMMITTER_DATE=2020-01-01T00:00:00Z
git init -q . -b main
for i in 1 2 3 4 5; do seq $i > f$i; git add .; git commit -q -m "change $i"; done
git log --oneline | cat
git gc -q 2>&1; git fsck 2>&1; git count-objects -v | grep -v size; git status -s
git checkout -q HEAD~2; ls; git diff main --stat | cat
