"""A search over several hosts: a chief, and workers that run its trials too.

The chief runs the search and trials of its own, and listens. A worker is the same call
on another host, with the chief's address: it bears the trials that it is told to, and
passes their messages on. Their files lie in the directory of the search, which the
hosts share; whoever connects must know the key that lies there.
"""

import collections
import contextlib
import os
import queue
import secrets
import socket
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener, wait
from pathlib import Path

from kseq.tuning.trials.errors import TrialServerLost
from kseq.tuning.trials.job import Joined, Left, moved
from kseq.tuning.trials.layout import SearchDirectory

NO_NETWORK = (OSError, EOFError, AuthenticationError)
KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # seconds
PATIENCE = 60  # seconds that a worker waits for its chief
MOST_RETURNS = 3  # of a worker whose server was killed


class Crew:
    """The chief's own server and those of the workers that have come, as one.

    Is used like a `TrialServer`. What it hears besides has the name None: `Joined` and
    `Left`, of workers whose trials are lost.

    Args:
        server: The `TrialServer` of this host.
        address: Where to listen, `"host:port"`.
        directory: The directory of the search.

    Raises:
        ValueError: The address is none, or cannot be listened at.
    """

    def __init__(self, server, address, directory):
        self.server = server
        self.remote = {}  # name of a worker -> its connection
        self.news = collections.deque()
        self.arrived = queue.SimpleQueue()
        self.closed = False
        try:
            self.listener = Listener(parse(address, "chief"), authkey=key_of(directory))
        except OSError as error:
            raise ValueError(
                "`chief` must be an address at which this host can listen. Received: "
                f"chief={address!r}: {error}."
            ) from error
        self.door = threading.Thread(target=self._welcome, daemon=True)
        self.door.start()

    def _welcome(self):
        while not self.closed:
            with contextlib.suppress(*NO_NETWORK):
                link = self.listener.accept()
                keep_alive(link)
                self.arrived.put((link, link.recv()))

    def start(self, name, job):
        self._send(name, "start", job)

    def tell(self, name, message):
        self._send(name, "tell", message)

    def kill(self, name):
        self._send(name, "kill")

    def _send(self, name, kind, *content):
        link = self.remote.get(name)
        if link is None:
            return getattr(self.server, kind)(name, *content)
        try:
            link.send((kind, name, *content))
        except OSError:
            self._part_from(link)

    def hear(self, seconds):
        """As that of a `TrialServer`, whose loss it reports in the same way."""
        while not self.arrived.empty():
            link, names = self.arrived.get()
            self.remote |= dict.fromkeys(names, link)
            self.news.append((None, Joined(names)))
        links = [link for link in {self.server.link, *self.remote.values()} if link]
        for link in [] if self.news else wait(links, seconds):
            if link is self.server.link:
                self.news.append(self.server.hear(0))
                continue
            try:
                self.news.append(link.recv())
            except NO_NETWORK:
                self._part_from(link)
        return self.news.popleft() if self.news else None

    def _part_from(self, link):
        names = [name for name, its in self.remote.items() if its is link]
        for name in names:
            del self.remote[name]
        link.close()
        if names:
            self.news.append((None, Left(names)))

    def close(self):
        """Sends the workers home, and kills the trials of this host."""
        for link in set(self.remote.values()):
            with contextlib.suppress(OSError):
                link.send(("done",))
            link.close()
        self.closed = True
        with contextlib.suppress(OSError):  # wakes the thread at the door
            socket.create_connection(self.listener.address, 1).close()
        self.door.join(1)
        self.listener.close()
        self.server.close()


def work(server, names, address, directory, patience=PATIENCE):
    """Bears trials for the chief at `address`, until it sends this worker home.

    Raises:
        ChiefLost: There is no chief, or it died; what its trials had done is kept.
        TrialServerLost: The server of the trials was killed time and again.
    """
    host = f"{socket.gethostname()}-{os.getpid()}"
    names = [f"{host}/{name}" for name in names]
    try:
        for attempt in range(MOST_RETURNS + 1):
            try:
                with connect(address, directory, patience) as link:
                    keep_alive(link)
                    link.send(names)
                    return relay(link, server, directory)
            except TrialServerLost:
                if attempt == MOST_RETURNS:
                    raise
    finally:
        server.close()


def relay(link, server, directory):
    """Passes messages between the chief and the server, until it says `done`."""
    while True:
        for ready in wait([link, server.link] if server.link else [link]):
            if ready is not link:
                send_on(link, server.hear(0))
                continue
            try:
                kind, *content = link.recv()
            except (EOFError, OSError) as error:
                raise ChiefLost(
                    "The chief of the search is gone, and with it the trials that ran "
                    "here. Start it again, and then this worker: they go on."
                ) from error
            if kind == "done":
                return
            if kind == "start":
                content[1] = moved(content[1], Path(directory))
            getattr(server, kind)(*content)


def send_on(link, message):
    with contextlib.suppress(OSError):  # a chief that is gone is noticed by `recv`
        link.send(message)


class ChiefLost(Exception):
    """There is no chief at the address, or no more."""


def connect(address, directory, patience):
    """The connection to the chief, who may come later than the worker."""
    place, deadline = parse(address, "worker"), time.monotonic() + patience
    while True:
        try:
            return Client(place, authkey=SearchDirectory(directory).key.read_bytes())
        except NO_NETWORK as error:
            if time.monotonic() > deadline:
                raise ChiefLost(
                    "`worker` must be the address of a chief that searches in the same "
                    f"directory. Received: worker={address!r}, directory={directory}, "
                    f"and no answer in {patience} s ({type(error).__name__}: {error})."
                ) from error
        time.sleep(min(0.5, patience))


def key_of(directory):
    """The key of a search, made when it first listens; only its owner may read it."""
    path = SearchDirectory(directory).key
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
    return path.read_bytes()


def parse(address, name):
    host, colon, port = str(address).rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 2**16):
        raise ValueError(
            f"`{name}` must be an address 'host:port'. Received: {name}={address!r}."
        )
    return host, int(port)


def keep_alive(link):
    """Has the system notice within a minute that the other host is gone."""
    with socket.socket(fileno=os.dup(link.fileno())) as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):
                end.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
