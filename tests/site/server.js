// The lab's site: files of DIRECTORY over HTTP on port 80, and over HTTP/2 or 1.1 with TLS on port 443, for every host.
//
// Usage: server.js DIRECTORY CERTIFICATE KEY. Writes "ready", then "VERSION HOST PATH" for each request.
const fs = require('fs');
const http = require('http');
const http2 = require('http2');
const path = require('path');

const [directory, cert, key] = process.argv.slice(2);

function serve(request, response) {
  const host = request.headers[':authority'] || request.headers.host;
  const asked = path.normalize(decodeURIComponent(request.url.split('?')[0]));
  console.log(request.httpVersion, host, asked);
  let file = path.join(directory, asked);
  if (fs.existsSync(file) && fs.statSync(file).isDirectory()) file = path.join(file, 'index.html');
  if (!file.startsWith(directory) || !fs.existsSync(file)) {
    response.writeHead(404);
    return response.end();
  }
  const body = fs.readFileSync(file);
  const type = file.endsWith('.html') ? 'text/html' : 'application/octet-stream';
  response.writeHead(200, { 'content-type': type, 'content-length': body.length });
  response.end(body);
}

const options = { cert: fs.readFileSync(cert), key: fs.readFileSync(key), allowHTTP1: true };
const secure = http2.createSecureServer(options, serve);
secure.on('sessionError', () => {});
secure.listen(443, '::', () => http.createServer(serve).listen(80, '::', () => console.log('ready')));
