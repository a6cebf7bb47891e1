// A cluster that serves, threads, children with a channel, and sockets of this process's own.
const cluster = require('cluster');
const http = require('http');
const net = require('net');
const dgram = require('dgram');
const os = require('os');
const { fork, execFileSync } = require('child_process');
const { Worker, isMainThread, parentPort } = require('worker_threads');

const PORT = 8101;

const get = (options) => new Promise((resolve, reject) => {
  http.get(options, (reply) => {
    let body = '';
    reply.on('data', (part) => (body += part)).on('end', () => resolve(body));
  }).on('error', reject);
});

if (!isMainThread) {
  parentPort.postMessage('from the thread');
} else if (process.argv[2] === 'child') {
  process.on('message', (message) => process.send(`${message} and back`, () => process.disconnect()));
} else if (!cluster.isPrimary) {
  http.createServer((_, reply) => reply.end('from the cluster')).listen(PORT);
} else {
  main().catch((error) => { console.log(error); process.exit(1); });
}

async function main() {
  let up = 0;
  await new Promise((resolve) => {
    cluster.on('listening', () => ++up === 2 && resolve());
    cluster.fork();
    cluster.fork();
  });
  for (const host of ['127.0.0.1', 'localhost', '::1', '192.0.2.2']) console.log(host, await get({ host, port: PORT }));
  await Promise.all(Object.values(cluster.workers).map((worker) => new Promise((resolve) => worker.on('exit', resolve).kill())));
  const thread = new Worker(__filename);
  console.log(await new Promise((resolve) => thread.on('message', resolve)));
  const child = fork(__filename, ['child']);
  child.send('there');
  console.log(await new Promise((resolve) => child.on('message', resolve)));
  for (const path of [`${process.env.HOME}/node.sock`, '\0node-abstract']) {
    const server = http.createServer((_, reply) => reply.end('over a unix socket')).listen(path);
    await new Promise((resolve) => server.on('listening', resolve));
    console.log(await get({ socketPath: path, path: '/' }));
    server.close();
  }
  const socket = dgram.createSocket('udp4');
  await new Promise((resolve) => socket.bind(0, resolve));
  const heard = new Promise((resolve) => socket.on('message', (message) => resolve(message.toString())));
  socket.send('a datagram', socket.address().port, 'localhost');
  console.log(await heard);
  socket.close();
  await new Promise((resolve) => net.connect(1, '127.0.0.1').on('error', (error) => resolve(console.log(error.code))));
  // Of the others node tells once their carrier is up, which may take a moment.
  console.log(execFileSync('sh', ['-c', 'echo from a program']).toString().trim(), 'lo' in os.networkInterfaces());
  console.log('done');
  process.exit(0);
}
