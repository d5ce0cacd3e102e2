# Three workers; new ones after a reload; a graceful end.
mkdir -p "$1/html"; cd "$1"; seq 100 > html/index.html
cat > c.conf << C
worker_processes 3; error_log $1/e.log; pid $1/pid; user root root;
events { worker_connections 64; }
http { access_log $1/a.log; client_body_temp_path $1/b; proxy_temp_path $1/p; fastcgi_temp_path $1/f;
  uwsgi_temp_path $1/u; scgi_temp_path $1/s; server { listen 127.0.0.1:8099; root $1/html; } }
C
nginx -p "$1" -e e.log -c "$1/c.conf"; echo "started $?"
python3 "$2/fetch.py" http://127.0.0.1:8099/
nginx -p "$1" -e e.log -c "$1/c.conf" -s reload; echo "reloaded $?"
python3 "$2/fetch.py" http://127.0.0.1:8099/
nginx -p "$1" -e e.log -c "$1/c.conf" -s quit
for i in $(seq 100); do [ -e pid ] || break; sleep 0.1; done
[ -e pid ] || echo ended
