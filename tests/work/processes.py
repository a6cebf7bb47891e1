"""Pools, queues, managers and listeners: what Python's processes say to each other."""

import concurrent.futures
import multiprocessing
import multiprocessing.shared_memory
import os
import sqlite3
from multiprocessing.connection import Client, Listener


def square(number):
    return number * number


def put(queue):
    queue.put("from the child")


def listen(family, address, ready):
    with Listener(address, family, authkey=b"key") as listener:
        ready.send(listener.address)
        with listener.accept() as connection:
            connection.send(connection.recv() + " and back")


def insert(path, number):
    with sqlite3.connect(path, timeout=20) as database:
        database.execute("insert into numbers values (?)", (number,))


def methods():
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            print(method, pool.map(square, range(5)))
        queue = context.Queue()
        child = context.Process(target=put, args=(queue,))
        child.start()
        print(method, queue.get(timeout=15))
        child.join()


def managers():
    with multiprocessing.Manager() as manager:
        shared = manager.dict(a=1)
        shared["b"] = 2
        print("manager", sorted(shared.items()))


def listeners():
    home = os.environ["HOME"]
    for family, address in (
        ("AF_UNIX", home + "/listener-of-a-process"),
        ("AF_UNIX", "\0" + home + "/abstract"),
        ("AF_INET", ("localhost", 0)),
    ):
        here, there = multiprocessing.Pipe()
        child = multiprocessing.Process(target=listen, args=(family, address, there))
        child.start()
        with Client(here.recv(), family, authkey=b"key") as client:
            client.send("there")
            print(family, client.recv())
        child.join()


def shared():
    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=16)
    memory.buf[:5] = b"bytes"
    again = multiprocessing.shared_memory.SharedMemory(memory.name)
    print("shared memory", bytes(again.buf[:5]))
    again.close()
    memory.close()
    memory.unlink()


def databases():
    path = os.environ["HOME"] + "/database"
    with sqlite3.connect(path) as database:
        print(database.execute("pragma journal_mode=wal").fetchone())
        database.execute("create table numbers (number)")
    with concurrent.futures.ProcessPoolExecutor(3) as pool:
        list(pool.map(insert, [path] * 6, range(6)))
    print("sum", sqlite3.connect(path).execute("select sum(number) from numbers").fetchone())


if __name__ == "__main__":
    methods()
    managers()
    listeners()
    shared()
    databases()
    print("done")
