"""Servers and clients of one's own on this machine: TCP, UDP and unix sockets, their options, and what is not there."""

import array
import asyncio
import os
import socket
import struct
import subprocess

HOME = os.environ["HOME"]
OWN4, OWN6 = "192.0.2.2", "2001:db8::2"


def line(*words):
    print(*words, flush=True)


async def serve(reader, writer):
    writer.write(b"echo " + await reader.readline())
    await writer.drain()
    writer.close()


async def ask(reader, writer):
    writer.write(b"hello\n")
    answer = await reader.readline()
    writer.close()
    return answer


async def streams():
    for bind, hosts in (
        ("127.0.0.1", ["127.0.0.1", "localhost", "0.0.0.0", "::ffff:127.0.0.1"]),
        ("::1", ["::1", "localhost", "::"]),
        ("0.0.0.0", ["127.0.0.1", "127.9.8.7", OWN4]),
        (OWN6, [OWN6]),
        (OWN4, [OWN4]),
    ):
        server = await asyncio.start_server(serve, bind, 0)
        port = server.sockets[0].getsockname()[1]
        for host in hosts:
            line("tcp", bind, host, await ask(*await asyncio.open_connection(host, port)))
        server.close()
    for length in (25, 26, 40):  # Addresses as long as those of the internet, and another.
        path = HOME + "/" + "s" * (length - len(HOME) - 1)
        server = await asyncio.start_unix_server(serve, path)
        line("unix", length, await ask(*await asyncio.open_unix_connection(path)))
        server.close()
    server = await asyncio.start_unix_server(serve, "\0" + HOME)
    line("abstract", await ask(*await asyncio.open_unix_connection("\0" + HOME)))
    server.close()


def much():
    """More than a packet can hold: the kernel's own super-packets are cut nowhere on this machine."""
    for host in ("127.0.0.1", "::1", OWN4, OWN6):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, 0), family=family) as listener:
            port = listener.getsockname()[1]
            child = os.fork()
            if child == 0:
                with socket.create_connection((host, port), 5) as client:
                    client.sendall(b"x" * (8 << 20))
                os._exit(0)
            taken, _ = listener.accept()
            taken.settimeout(5)
            line("much", host, sum(len(part) for part in iter(lambda: taken.recv(1 << 20), b"")))
            os.waitpid(child, 0)


def datagrams():
    for family, bind, hosts in (
        (socket.AF_INET, "127.0.0.1", ["127.0.0.1"]),
        (socket.AF_INET, "0.0.0.0", ["127.0.0.1", OWN4, "0.0.0.0"]),
        (socket.AF_INET6, "::", ["::1", "::ffff:127.0.0.1", OWN6, "::ffff:" + OWN4]),
    ):
        with socket.socket(family, socket.SOCK_DGRAM) as server:
            server.bind((bind, 0))
            server.settimeout(5)
            port = server.getsockname()[1]
            for host in hosts:
                with socket.socket(family, socket.SOCK_DGRAM) as client:
                    client.settimeout(5)
                    client.sendto(b"asked", (host, port))
                    question, back = server.recvfrom(99)
                    server.sendto(b"unconnected", back)
                    line("udp", host, question, client.recv(99))
                    client.connect((host, port))
                    client.send(b"again")
                    server.sendto(b"connected", server.recvfrom(99)[1])
                    line("udp", host, client.recv(99))
                    tos = (socket.IPPROTO_IP, socket.IP_TOS, struct.pack("i", 2))
                    if family == socket.AF_INET:
                        client.sendmsg([b"marked"], [tos])
                        line("udp", host, server.recv(99))


def unix():
    for name in (HOME + "/datagram-of-its-own", "\0" + HOME + "-datagram"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            server.bind(name)
            client.bind("")
            client.sendto(b"asked", name)
            question, back = server.recvfrom(99)
            server.sendto(b"answered", back)
            line("unix datagram", question, client.recv(99))
            client.connect(name)
            client.send(b"connected")
            line("unix datagram", server.recv(99))
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        # With 13, 14, 25 and 26 the address is as long as one of the internet's.
        for length in (1, 12, 13, 14, 15, 24, 25, 26, 60, 107):
            os.chdir(HOME)
            path = "p" * (length - 1) + str(int(kind) % 10)
            with socket.socket(socket.AF_UNIX, kind) as server, socket.socket(socket.AF_UNIX, kind) as client:
                server.bind(path)
                server.listen()
                client.connect(path)
                accepted = server.accept()[0]
                client.send(b"over")
                line("unix", int(kind), length, accepted.recv(99))
                accepted.close()
            os.unlink(path)


def passed():
    """A listener's descriptor goes to a child, which answers on it."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child == 0:
            fds = array.array("i", [0])
            _, ancillary, _, _ = there.recvmsg(1, socket.CMSG_SPACE(4))
            fds.frombytes(ancillary[0][2])
            taken = socket.socket(fileno=fds[1])
            connection, _ = taken.accept()
            connection.send(b"from the child")
            os._exit(0)
        here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener.fileno()]))])
        with socket.create_connection(listener.getsockname(), 5) as client:
            line("passed", client.recv(99))
        os.waitpid(child, 0)


def options():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        for where, level, name, value in (
            (tcp, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
            (tcp, socket.SOL_SOCKET, socket.SO_REUSEPORT, 1),
            (tcp, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (tcp, socket.SOL_SOCKET, socket.SO_RCVBUF, 65536),
            (tcp, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (tcp, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
            (tcp, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000),
            (tcp, socket.IPPROTO_TCP, 30, 1),  # TCP_FASTOPEN_CONNECT
            (tcp, socket.IPPROTO_IP, socket.IP_TOS, 16),
            (tcp, socket.IPPROTO_IP, 24, 1),  # IP_BIND_ADDRESS_NO_PORT
            (udp, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0),
            (udp, socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 2),
            (udp, socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1),
            (udp, socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1),
            (udp, socket.IPPROTO_IPV6, 25, 1),  # IPV6_RECVERR
            (udp, socket.IPPROTO_IPV6, 23, 2),  # IPV6_MTU_DISCOVER
            (udp, socket.SOL_SOCKET, socket.SO_BROADCAST, 1),
        ):
            where.setsockopt(level, name, value)
    line("options", "set")


def absent():
    """Where nobody listens the kernel says so, and not we; not so at the host's other addresses, where egress cannot know."""
    for host in ("127.0.0.1", "::1", "localhost"):
        try:
            socket.create_connection((host, 1), 5)
        except OSError as error:
            line("absent", host, error.errno)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect(("127.0.0.1", 1))
        client.send(b"anybody")
        try:
            client.recv(9)
        except OSError as error:
            line("absent", "udp", error.errno)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        for path in (HOME + "/nobody-is-listening", "\0nobody-here"):
            try:
                client.connect(path)
            except OSError as error:
                line("absent", "unix", error.errno)


def network():
    line("devices", socket.if_nameindex())
    line("localhost", sorted({item[4][0] for item in socket.getaddrinfo("localhost", 80)}))
    for words in (["ip", "-br", "addr"], ["ip", "route", "get", "203.0.113.10"], ["ss", "-Htln"]):
        line(words, subprocess.run(words, capture_output=True, text=True).returncode)


asyncio.run(streams())
much()
datagrams()
unix()
passed()
options()
absent()
network()
line("done")
