"""A private RabbitMQ, through the same script that the Rust tests use."""

import pathlib
import subprocess

from peer.process import TOP, free_port

SCRIPT = TOP / "tests" / "lib" / "broker.sh"


class Broker:
    """One node in its own folder. `tls` adds a listener that asks for a client certificate."""

    def __init__(self, folder, tls=False):
        self.folder = pathlib.Path(folder)
        self.port = free_port(3)  # the script takes the next two for the node itself
        self.tls_port = free_port() if tls else None
        self.certs = self.folder.with_name(self.folder.name + "-certs") if tls else None
        if tls:
            self._run("certs", self.certs)

    def _run(self, verb, *arguments, seconds=120):
        argv = [str(SCRIPT), verb, *(str(a) for a in arguments)]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False
        )
        if done.returncode:
            raise AssertionError(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout.decode(errors='replace')}")
        return done.stdout.decode(errors="replace")

    def start(self):
        """Returns when it accepts connections."""
        tls = [self.tls_port, self.certs] if self.tls_port else []
        self._run("start", self.folder, self.port, *tls)

    def stop(self):
        self._run("stop", self.folder)

    def kill(self):
        """As a power cut does it."""
        self._run("kill", self.folder)

    def run(self):
        """Starts it again with what it had."""
        self._run("run", self.folder)

    def restart(self):
        self._run("restart", self.folder)

    @property
    def transport_url(self):
        if self.tls_port:
            return f"rabbit://guest:guest@localhost:{self.tls_port}//"
        return f"rabbit://guest:guest@127.0.0.1:{self.port}//"

    @property
    def tls_options(self):
        """Lines for [oslo_messaging_rabbit]."""
        return (
            f"ssl = true\nssl_ca_file = {self.certs}/ca.pem\n"
            f"ssl_cert_file = {self.certs}/client.pem\nssl_key_file = {self.certs}/client.key\n"
        )

    def delete_queue(self, name):
        """As an operator would; a client of its own, so nothing of ours is involved."""
        import amqp

        with amqp.Connection(f"127.0.0.1:{self.port}", userid="guest", password="guest") as connection:
            with connection.channel() as channel:
                channel.queue_delete(name)

    def has_queue(self, name):
        """Whether a queue exists."""
        import amqp

        try:
            with amqp.Connection(f"127.0.0.1:{self.port}", userid="guest", password="guest") as connection:
                with connection.channel() as channel:
                    channel.queue_declare(name, passive=True)
        except (OSError, amqp.exceptions.AMQPError):
            return False
        return True

    def declare(self, name, **options):
        """Makes a queue as somebody else would have left it, bound to the control exchange."""
        import amqp

        arguments = options.pop("arguments", None)
        with amqp.Connection(f"127.0.0.1:{self.port}", userid="guest", password="guest") as connection:
            with connection.channel() as channel:
                channel.exchange_declare("trove", "topic", passive=True)
                channel.queue_declare(name, auto_delete=False, arguments=arguments, **options)
                channel.queue_bind(name, "trove", name)
