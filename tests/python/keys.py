"""Keys, lists of clients and servers that have them, for the tests."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import zmq
from zmqlocker import LockerServer

if TYPE_CHECKING:
    from pathlib import Path


@dataclasses.dataclass
class Key:
    """A key in its files, and as pyzmq takes it."""

    file: Path
    public: str
    secret: str

    @property
    def public_file(self) -> Path:
        return self.file.with_name(self.file.name + ".pub")

    def client(self, server: Key) -> dict[str, Any]:
        """The arguments of a client with this key."""
        return {"server_key": server.public, "key_file": self.file}

    def give(self, socket: zmq.Socket[bytes], server: Key) -> None:
        """Have a socket of pyzmq speak with this key."""
        socket.curve_serverkey = server.public.encode()
        socket.curve_publickey = self.public.encode()
        socket.curve_secretkey = self.secret.encode()


class KeyRing:
    """Makes keys in a folder, and a list of clients beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clients = folder / "clients.toml"
        self.server = self.key("server")

    def key(self, name: str) -> Key:
        public, secret = (part.decode() for part in zmq.curve_keypair())
        key = Key(self.folder / f"{name}.key", public, secret)
        key.file.touch(0o600)
        key.file.write_text(f'public_key = "{public}"\nsecret_key = "{secret}"\n')
        key.public_file.write_text(f'public_key = "{public}"\n')
        return key

    def let_in(self, *clients: tuple[Key, str, str]) -> None:
        """Write the list: each key with the patterns that it may use and administer."""
        text = ""
        for key, used, administered in clients:
            rights = {"use": used.split(), "administer": administered.split()}
            lines = "".join(f"{right} = {patterns}\n" for right, patterns in rights.items())
            text += f'[clients.{key.file.stem}]\npublic_key = "{key.public}"\n{lines}'
        self.clients.write_text(text)

    def serve(self, url: str = "tcp://127.0.0.1:*", **options: Any) -> LockerServer:
        """Serve in the background with the server's key and the list."""
        secure = {"curve_key": self.server.file, "clients": self.clients}
        return LockerServer(
            url=url, block=False, **{"limits": {"*": "1000/s"}, **secure, **options}
        )
