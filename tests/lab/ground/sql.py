"""A session at a server's socket, held open: a statement costs no process and no login."""

import os
import selectors
import subprocess
import time

from ground.guest import Refused

END = "end-of-the-answer"


class Session:
    """The server's own client at the other end of two pipes."""

    def __init__(self, guest):
        self.guest = guest
        self.child = subprocess.Popen(
            ["mariadb", f"--defaults-file={guest.admin_file()}", f"--socket={guest.socket}", "--protocol=socket", "--batch", "--raw", "-N", "-n", "--force"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )
        self.wait = selectors.DefaultSelector()
        self.wait.register(self.child.stdout, selectors.EVENT_READ)
        os.set_blocking(self.child.stdout.fileno(), False)

    def send(self, text):
        """Begins statements; `answer` waits for their end."""
        try:
            self.child.stdin.write(f"{text};\nSELECT '{END}';\n".encode())
            self.child.stdin.flush()
        except OSError as error:
            raise Refused(f"{self.guest}: {error}") from None

    def answer(self, seconds=30):
        """Rows as lists of texts."""
        got, limit = b"", time.monotonic() + seconds
        while not got.endswith(END.encode() + b"\n"):
            self.wait.select(max(limit - time.monotonic(), 0))
            part = self.child.stdout.read()
            if part == b"" or time.monotonic() > limit:
                raise Refused(f"{self.guest}: no answer: {got.decode(errors='replace')}")
            got += part or b""
        lines = got.decode(errors="replace").splitlines()[:-1]
        for line in lines:
            if line.startswith("ERROR "):
                raise Refused(f"{self.guest}: {line}")
        return [line.split("\t") for line in lines]

    def sql(self, text, seconds=30):
        self.send(text)
        return self.answer(seconds)

    def value(self, text, seconds=30):
        return self.sql(text, seconds)[0][0]

    def close(self):
        self.child.kill()
        self.child.wait()
        self.wait.close()
