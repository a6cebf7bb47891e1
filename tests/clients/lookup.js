// Looks a name up by the C library (`lookup`) or by node's own resolver (`resolve4`, `resolve6`), and connects.
const dns = require('dns').promises;
const net = require('net');

async function main([name, how]) {
  const found = await dns[how](name);
  const address = Array.isArray(found) ? found[0] : found.address;
  await new Promise((done, failed) => net.connect(443, address, done).on('error', failed));
  console.log('connected to', address);
  process.exit(0);
}

main(process.argv.slice(2)).catch(error => {
  console.log(error.message);
  process.exit(1);
});
