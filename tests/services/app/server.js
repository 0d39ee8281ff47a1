// A server, a client, a worker thread: what each read of a protected file, in one line.
const crypto = require("crypto");
const fs = require("fs");
const http = require("http");
const { Worker } = require("worker_threads");
const { markers } = require("./package/index.js");

try {
  require("planted"); // not there, unless somebody plants it
} catch (error) {
  if (error.code !== "MODULE_NOT_FOUND") throw error;
}

const server = http.createServer((request, response) => response.end(fs.readFileSync(__dirname + "/secret.txt")));
server.listen(0, "127.0.0.1", () =>
  http.get({ host: "127.0.0.1", port: server.address().port }, (response) => {
    let body = "";
    response.on("data", (part) => (body += part));
    response.on("end", () => {
      const text = "require('worker_threads').parentPort.postMessage(require('fs').readFileSync('/app/secret.txt', 'utf8'))";
      new Worker(text, { eval: true }).on("message", (inner) => {
        const sha = crypto.createHash("sha256").update("x").digest("hex").slice(0, 4);
        console.log(JSON.stringify({ secret: body.trim(), again: inner.trim(), sha, markers }));
        process.exit(0);
      });
    });
  }),
);
