mkdir -p "$1/html"; cd "$1"; seq 100 > html/index.html
cat > c.conf << C
server.document-root = "$1/html"
server.port = 8098
server.bind = "127.0.0.1"
server.max-worker = 3
server.errorlog = "$1/e.log"
index-file.names = ( "index.html" )
C
lighttpd -D -f c.conf &
python3 "$2/fetch.py" http://127.0.0.1:8098/
