"""A client of DNS that asks one server one question and shows what it was told."""

import dataclasses
import ipaddress
import itertools
import socket
import struct

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "AAAA": 28, "SRV": 33}
NAMES = {number: name for name, number in TYPES.items()}
CODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
IDS = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Record:
    name: str
    kind: str
    ttl: int
    data: object


@dataclasses.dataclass(frozen=True)
class Response:
    code: str
    truncated: bool
    answers: tuple
    authority: tuple

    def addresses(self):
        return sorted(record.data for record in self.answers if record.kind in ("A", "AAAA"))


def ask(server, name, kind="A", tcp=False):
    """The response of a resolver to the question for a name."""
    query = struct.pack(">6H", next(IDS) & 0xFFFF, 0x0100, 1, 0, 0, 0)
    query += b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    query += struct.pack(">2H", TYPES[kind], 1)
    response = by_tcp(server, query) if tcp else by_udp(server, query)
    assert response[:2] == query[:2]
    return parse(response)


def by_udp(server, query):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.connect((server, 53))
        client.send(query)
        return client.recv(65535)


def by_tcp(server, query):
    with socket.create_connection((server, 53), timeout=20) as client, client.makefile("rb") as reader:
        client.sendall(struct.pack(">H", len(query)) + query)
        (length,) = struct.unpack(">H", reader.read(2))
        return reader.read(length)


def parse(message):
    _, flags, questions, answers, authority, _ = struct.unpack(">6H", message[:12])
    place = 12
    for _ in range(questions):
        place = read_name(message, place)[1] + 4
    sections = []
    for count in (answers, authority):
        records = []
        for _ in range(count):
            record, place = read_record(message, place)
            records.append(record)
        sections.append(tuple(records))
    return Response(CODES[flags & 15], bool(flags & 0x0200), *sections)


def read_record(message, place):
    name, place = read_name(message, place)
    number, _, ttl, length = struct.unpack(">HHIH", message[place : place + 10])
    place += 10
    kind, data = NAMES.get(number, str(number)), message[place : place + length]
    if kind in ("A", "AAAA"):
        data = str(ipaddress.ip_address(data))
    elif kind in ("CNAME", "NS", "PTR"):
        data = read_name(message, place)[0]
    elif kind == "SRV":
        data = (struct.unpack(">3H", data[:6]), read_name(message, place + 6)[0])
    return Record(name, kind, ttl, data), place + length


def read_name(message, place):
    """The name at a place, and the place after it."""
    labels, after = [], None
    while length := message[place]:
        if length & 0xC0:
            after = after or place + 2
            place = struct.unpack(">H", message[place : place + 2])[0] & 0x3FFF
        else:
            labels.append(message[place + 1 : place + 1 + length].decode())
            place += 1 + length
    return ".".join(labels), after or place + 1
