// Run by demos/node in the enclave.
const http = require("http");
const { execFileSync } = require("child_process");
const { Worker } = require("worker_threads");

const server = http.createServer((_, answer) => answer.end("hello from Node"));
server.listen(0, "127.0.0.1", async () => {
  const page = await new Promise((resolve) =>
    http.get({ port: server.address().port, host: "127.0.0.1" }, (answer) => {
      let text = "";
      answer.on("data", (part) => (text += part)).on("end", () => resolve(text));
    }),
  );
  const code = "require('worker_threads').parentPort.postMessage(6 * 7)";
  const worker = await new Promise((resolve) => new Worker(code, { eval: true }).once("message", resolve));
  const child = execFileSync("/bin/echo", ["hello from a child"]).toString().trim();
  console.log(`page: ${page}, worker: ${worker}, child: ${child}`);
  server.close();
});
