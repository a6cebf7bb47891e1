"""Prints a packet to the address that nobody allows: `frame` in an Ethernet frame to everybody, `tunnel` without."""

import socket
import sys

kind = sys.argv[1]
payload = b"sk-" + kind.encode()
udp = (40000).to_bytes(2, "big") + (443).to_bytes(2, "big") + (8 + len(payload)).to_bytes(2, "big") + b"\0\0" + payload
source = "192.0.2.2" if kind == "frame" else "198.51.100.9"
header = b"\x45\0" + (20 + len(udp)).to_bytes(2, "big") + b"\0\1\0\0\x40\x11"
addresses = socket.inet_aton(source) + socket.inet_aton("203.0.113.66")
total = sum(int.from_bytes((header + b"\0\0" + addresses)[at : at + 2], "big") for at in range(0, 20, 2))
while total >> 16:
    total = (total & 0xFFFF) + (total >> 16)
packet = header + (total ^ 0xFFFF).to_bytes(2, "big") + addresses + udp
if kind == "frame":
    packet = b"\xff" * 6 + b"\2\0\0\0\0\1" + b"\x08\0" + packet
sys.stdout.buffer.write(packet)
