"""A Flask application in a server of its own thread, and a client; run by demos/flask."""

import json
import threading
import urllib.request

from flask import Flask, request
from werkzeug.serving import make_server

app = Flask(__name__)


@app.post("/multiply")
def multiply() -> dict[str, int]:
    numbers = request.get_json()
    return {"product": numbers["a"] * numbers["b"]}


server = make_server("127.0.0.1", 5000, app, threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
for a, b in ((6, 7), (3, 4)):
    body = json.dumps({"a": a, "b": b}).encode()
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request("http://127.0.0.1:5000/multiply", body, headers)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        print(json.dumps(json.load(answer)))
server.shutdown()
