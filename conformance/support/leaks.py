"""What a server has on the machine, by comparison with what was there before."""

from .host import Foreign, belongings, foreign_servers, leftovers
from .server import live, made
from .waiting import until


class Nothing(dict):
    """True when empty, so that a failure shows what is left."""

    def __bool__(self):
        return not len(self)


class Machine:
    """The machine as it was before a test, to compare with; servers of others come and go meanwhile."""

    def __init__(self):
        self.shared = {Foreign(str(server.data_dir), server.vpc_cidr) for server in live}
        self.foreign = set()
        self.before = self._now()

    def _now(self):
        # One that was killed is still known by what was seen of it.
        self.foreign |= self.shared | foreign_servers(made)
        return leftovers(self.foreign)

    def new(self):
        """What is there now and was not, by kind."""
        now = self._now()
        new = {kind: [each for each in now[kind] if each not in self.before[kind]] for kind in now}
        return {kind: found for kind, found in new.items() if found}

    def check_nothing_is_left(self):
        """The kernel frees a namespace a moment after its last process; so once more is enough."""
        until("nothing is left", lambda: Nothing(self.new()), deadline=15)


def check_nothing_of(server):
    """After `down`, whoever else is on the machine: nothing there carries the server's name."""
    until(f"nothing of {server.data_dir} is left", lambda: Nothing(belongings(server)), deadline=15)
