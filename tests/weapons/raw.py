"""What a few lines of Python open: raw sockets, frames, ping sockets, lesser protocols, options, groups."""

import socket
import struct
import sys

bad4, bad6, good4, good6 = sys.argv[1:]
AF_PACKET, MPTCP, UDPLITE = 17, 262, 136


def attempt(name, work):
    try:
        work()
        print("sent", name)
    except OSError as error:
        print("failed", name, error)


def checked(kind, payload):
    head = struct.pack("!BBHHH", kind, 0, 0, 7, 1)
    body = head + payload + b"\0" * (len(payload) % 2)
    total = sum(struct.unpack(f"!{len(body) // 2}H", body))
    total = (total & 0xFFFF) + (total >> 16)
    return body[:2] + struct.pack("!H", 0xFFFF ^ ((total & 0xFFFF) + (total >> 16))) + body[4:]


def to(family, kind, protocol, address, payload, *options):
    def work():
        with socket.socket(family, kind, protocol) as made:
            made.settimeout(1)
            for option in options:
                made.setsockopt(*option)
            made.sendto(payload, address)

    return work


def connected(family, kind, protocol, address, payload):
    def work():
        with socket.socket(family, kind, protocol) as made:
            made.settimeout(1)
            made.connect(address)
            made.send(payload)

    return work


def joined():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        group = socket.inet_aton("239.7.7.7") + socket.inet_aton("192.0.2.2")
        made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)


def joined6():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as made:
        group = socket.inet_pton(socket.AF_INET6, "ff0e::7:7") + struct.pack("@I", 2)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)


def frame():
    with socket.socket(AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x800)) as made:
        udp = struct.pack("!HHHH", 40000, 443, 8 + 8, 0) + b"py-frame"
        packet = struct.pack("!BBHHHBBH", 0x45, 0, 36, 1, 0, 64, 17, 0)
        packet += socket.inet_aton("192.0.2.2") + socket.inet_aton(bad4) + udp
        made.sendto(packet, ("agent0", 0x800, 0, 0, b"\xff" * 6))


INET, INET6, DGRAM, RAW, STREAM = socket.AF_INET, socket.AF_INET6, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_STREAM
LSRR = (socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x83\x07\x04" + socket.inet_aton(bad4) + b"\0")
DEVICE = (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"agent0")
BROADCAST = (socket.SOL_SOCKET, socket.SO_BROADCAST, 1)

attempt("udp", to(INET, DGRAM, 0, (bad4, 443), b"py-udp"))
attempt("udp6", to(INET6, DGRAM, 0, (bad6, 443), b"py-udp6"))
attempt("mapped", to(INET6, DGRAM, 0, ("::ffff:" + bad4, 443), b"py-mapped"))
attempt("tcp", connected(INET, STREAM, 0, (bad4, 443), b"py-tcp"))
attempt("mptcp", connected(INET, STREAM, MPTCP, (bad4, 444), b"py-mptcp"))
attempt("fast open", lambda: socket.socket(INET, STREAM).sendto(b"py-fast", socket.MSG_FASTOPEN, (bad4, 53)))
attempt("udp-lite", to(INET, DGRAM, UDPLITE, (bad4, 443), b"py-lite"))
attempt("ping socket", to(INET, DGRAM, 1, (bad4, 0), checked(8, b"py-ping")))
attempt("ping socket 6", to(INET6, DGRAM, 58, (bad6, 0), checked(128, b"py-ping6")))
attempt("raw icmp", to(INET, RAW, 1, (bad4, 0), checked(8, b"py-echo")))
attempt("raw other", to(INET, RAW, 253, (bad4, 0), b"py-other"))
header = struct.pack("!BBHHHBBH", 0x45, 0, 0, 1, 0, 64, 17, 0) + b"\0" * 4 + socket.inet_aton(bad4)
attempt("raw header", to(INET, RAW, 255, (good4, 0), header + struct.pack("!HHHH", 9, 443, 17, 0) + b"py-header"))
attempt("source route", to(INET, DGRAM, 0, (good4, 443), b"py-lsrr", LSRR))
attempt("device", to(INET, DGRAM, 0, (bad4, 443), b"py-device", DEVICE))
attempt("broadcast", to(INET, DGRAM, 0, ("192.0.2.255", 443), b"py-broad", BROADCAST))
attempt("multicast", to(INET, DGRAM, 0, ("239.1.2.3", 443), b"py-multi"))
attempt("frame", frame)
attempt("join", joined)
attempt("join 6", joined6)
