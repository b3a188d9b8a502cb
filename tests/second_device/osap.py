"""The device's half of an LBS connection, generations G2, G1 and G0: keys, frames and runs.

Written from the text of the OSAP wire specification alone; numbers in brackets are its clauses.
A run is a generator: it yields the frames to send next, is resumed with the frame that came back and
returns a `Session`. Only `drive` knows sockets, so the recorded exchanges can be replayed without one.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Generator
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import constant_time, hashes, hmac, padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 6.0
MAX_PAYLOAD = 16_384

SALT = b"www.88075998.com"
CBC_IV = b"01234567" + bytes(8)
GCM_NONCE = b"012345" + bytes(6)
TAG = 16

VERSION_FIRST = bytes((1, 2, 0))
VERSION = bytes((1, 1, 0))
VERSION_G0 = bytes((1, 0, 0))
PROTOCOL_TYPE = 1
SUCCESS = 0

G2 = "g2"
G1 = "g1"
G0 = "g0"
GENERATIONS = (G2, G1, G0)


class ProtocolError(Exception):
    """The peer broke the protocol: wrong frame, length, tag or signature, silence or a closed connection."""


class Refused(Exception):
    """The peer answered with a result code other than 0 [5.11] or a CONNACK code other than 0 [9.3]."""

    def __init__(self, at: str, code: int, protocol_type: int | None = None) -> None:
        super().__init__(f"{at} answered {code}")
        self.at = at
        self.code = code
        self.protocol_type = protocol_type


# Ciphers [4.1, 4.2]


def cbc_seal(key: bytes, plaintext: bytes) -> bytes:
    padder = padding.PKCS7(128).padder()
    padded = padder.update(plaintext) + padder.finalize()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(CBC_IV)).encryptor()
    return encryptor.update(padded) + encryptor.finalize()


def cbc_open(key: bytes, ciphertext: bytes) -> bytes:
    if not ciphertext or len(ciphertext) % 16:
        raise ProtocolError(f"{len(ciphertext)} bytes are not an L-CBC message")
    decryptor = Cipher(algorithms.AES(key), modes.CBC(CBC_IV)).decryptor()
    unpadder = padding.PKCS7(128).unpadder()
    try:
        return unpadder.update(decryptor.update(ciphertext) + decryptor.finalize()) + unpadder.finalize()
    except ValueError as error:
        raise ProtocolError("L-CBC message has a wrong padding") from error


def gcm_seal(key: bytes, plaintext: bytes) -> tuple[bytes, bytes]:
    """Tag and ciphertext, in the order of the wire."""
    sealed = AESGCM(key).encrypt(GCM_NONCE, plaintext, None)
    return sealed[-TAG:], sealed[:-TAG]


def gcm_open(key: bytes, tag: bytes, ciphertext: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(GCM_NONCE, ciphertext + tag, None)
    except InvalidTag as error:
        raise ProtocolError("L-GCM tag is wrong") from error


# Keys [4.3, 4.4]


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def share_key_s1(code: str, serial: str, lower_case: bool) -> bytes:
    """S1 of G0 and G1, 32 ASCII bytes; in G1 its first 16 are the key of AUTH-I and AUTH-II."""
    d1 = _md5(code.encode() + serial.encode())
    d1 = d1 if lower_case else d1.upper()
    d2 = _md5(d1.encode() + SALT).upper()
    return _md5(d2.encode()).upper().encode()


def share_key(code: str, serial: str, lower_case: bool) -> bytes:
    """S2 of G2, 32 ASCII bytes; its first 16 are the key of AUTH-I and AUTH-II."""
    d3 = share_key_s1(code, serial, lower_case)
    p = PBKDF2HMAC(algorithm=hashes.SHA256(), length=32, salt=SALT, iterations=3).derive(d3)
    return p.hex().upper()[10:42].encode()


def master_key(shared_secret: bytes) -> bytes:
    """MK from Z, the x-coordinate with its leading zeros."""
    return _md5(shared_secret)[:16].upper().encode()


def signature(key: bytes, serial: str) -> bytes:
    """SIG, the same 48 bytes in both directions."""
    mac = hmac.HMAC(key, hashes.SHA384())
    mac.update(hashlib.sha384(serial.encode()).digest())
    return mac.finalize()


def master_key_g0(randoms: bytes, s1: bytes) -> bytes:
    """MK from n1 to n4."""
    return hashlib.sha384(randoms + s1).hexdigest()[:16].upper().encode()


def signature_g0(s1: bytes, serial: str, *randoms: bytes) -> bytes:
    """SIG0 over the serial and some of the randoms, 32 bytes."""
    mac = hmac.HMAC(s1, hashes.SHA256())
    mac.update(hashlib.sha256(serial.encode() + b"".join(randoms)).digest())
    return mac.finalize()


def public_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


# Frames [3]


@dataclass(frozen=True)
class Frame:
    """One LBS frame. Of a received frame the variable header is left at the front of the payload."""

    head: int
    payload: bytes
    variable: bytes = b""

    def parts(self) -> list[bytes]:
        """Fixed header, variable header and payload: the real client writes them one by one [3.4]."""
        remaining = len(self.variable) + len(self.payload)
        header = bytes((self.head,)) + varint(remaining)
        return [part for part in (header, self.variable, self.payload) if part]

    def encode(self) -> bytes:
        return b"".join(self.parts())


def varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(out)


def read_frame(stream: socket.socket) -> Frame:
    head = _read(stream, 1)[0]
    length = 0
    for shift in (0, 7, 14, 21):
        digit = _read(stream, 1)[0]
        length |= (digit & 0x7F) << shift
        if digit < 0x80:
            break
    else:
        raise ProtocolError("remaining length is longer than four bytes")
    if length > MAX_PAYLOAD:
        raise ProtocolError(f"a frame of {length} bytes is too large")
    return Frame(head, _read(stream, length))


def _read(stream: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        try:
            chunk = stream.recv(count - len(data))
        except TimeoutError as error:
            raise ProtocolError(f"the LBS was silent for {READ_TIMEOUT:g} s") from error
        if not chunk:
            raise ProtocolError("the LBS closed the connection")
        data += chunk
    return bytes(data)


# Runs [5, 6, 7]


@dataclass(frozen=True)
class Das:
    """Where to log in [5.8]."""

    address: str
    port: int
    udp_port: int
    domain: str
    server_id: str


@dataclass(frozen=True)
class Session:
    """What a complete run leaves behind. DevID and master key are for the state file, the session key is not."""

    dev_id: str
    master_key: bytes = field(repr=False)
    session_key: bytes = field(repr=False)
    das: Das


Run = Generator[list[Frame], Frame, Session]


def authenticate(
    serial: str,
    code: str,
    *,
    generation: str = G2,
    lower_case: bool = False,
    dev_id: str | None = None,
    private_key: ec.EllipticCurvePrivateKey | None = None,
) -> Run:
    """First authentication [5.1 to 5.4], or with a DevID the refresh by ECDH [5.6]; then the DAS address.

    G1 differs in what it seals with [6]; G0 is `authenticate_g0`.
    """
    exchange_keys, sealed = (_exchange_keys, _sealed) if generation == G2 else (_exchange_keys_g1, _sealed_g1)
    private_key = private_key or ec.generate_private_key(ec.SECP384R1())
    key = yield from exchange_keys(serial, code, lower_case, private_key)
    proof = signature(key, serial)
    if dev_id is None:
        request, answer_head = Frame(0x72, VERSION + proof), 0x82
    else:
        request, answer_head = Frame(0x42, VERSION + _counted(dev_id.encode()) + proof), 0x62
    reader = _Reader(_content((yield [request]), answer_head))
    new_dev_id = _dev_id(sealed(reader, key, 32))
    session_key = sealed(reader, key, 16)
    if not constant_time.bytes_eq(reader.rest(), proof):
        raise ProtocolError("signature of the LBS is wrong")
    das = yield from _das_address(serial, session_key)
    return Session(new_dev_id, key, session_key, das)


def authenticate_g0(
    serial: str,
    code: str,
    *,
    lower_case: bool = False,
    dev_id: str | None = None,
    n1: bytes | None = None,
    n3: bytes | None = None,
) -> Run:
    """Authentication without a key agreement [7], for a new DevID or with the one there is; then the DAS address."""
    n1, n3 = n1 or os.urandom(1), n3 or os.urandom(1)
    s1 = share_key_s1(code, serial, lower_case)
    hello = VERSION_FIRST + _mode(serial) + _counted(serial.encode()) + n1 + signature_g0(s1, serial, n1)
    reader = _Reader(_content_g0((yield [Frame(0x10, hello)]), 0x20, VERSION_FIRST))
    n2 = reader.take(1)
    if not constant_time.bytes_eq(reader.rest(), signature_g0(s1, serial, n1, n2)):
        raise ProtocolError("signature of the LBS is wrong")
    proof = signature_g0(s1, serial, n2, n3)
    if dev_id is None:
        request, answer_head = Frame(0x40, VERSION + n3 + proof), 0x60
    else:
        request, answer_head = Frame(0x30, VERSION + n3 + _counted(dev_id.encode()) + proof), 0x50
    reader = _Reader(_content_g0((yield [request]), answer_head, VERSION))
    n4 = reader.take(1)
    key = master_key_g0(n1 + n2 + n3 + n4, s1)
    kept_dev_id = _dev_id(_sealed_g1(reader, key, 32)) if dev_id is None else dev_id
    session_key = _sealed_g1(reader, key, 16)
    if not constant_time.bytes_eq(reader.rest(), signature_g0(s1, serial, n3, n4)):
        raise ProtocolError("signature of the LBS is wrong")
    das = yield from _das_address(serial, session_key)
    return Session(kept_dev_id, key, session_key, das)


def plain_refresh(serial: str, dev_id: str, key: bytes, *, r1: bytes | None = None) -> Run:
    """Refresh with the stored master key [5.7]; then the DAS address."""
    r1 = r1 or os.urandom(1)
    hello = VERSION + _counted(serial.encode()) + _counted(dev_id.encode()) + cbc_seal(key, r1)
    sealed = _content((yield [Frame(0x70, hello)]), 0x80)
    answer = cbc_open(key, sealed)
    if len(sealed) != 32 or len(answer) != 18:
        raise ProtocolError("answer to the plain refresh has a wrong length")
    if answer[:1] != r1:
        raise ProtocolError("the LBS did not repeat our challenge")
    session_key = answer[2:]
    # The proof has no answer of its own: the next request leaves with it.
    das = yield from _das_address(serial, session_key, Frame(0x90, VERSION + cbc_seal(key, answer[1:2])))
    return Session(dev_id, key, session_key, das)


def _exchange_keys(
    serial: str, code: str, lower_case: bool, private_key: ec.EllipticCurvePrivateKey
) -> Generator[list[Frame], Frame, bytes]:
    aes_key = share_key(code, serial, lower_case)[:16]
    tag, sealed = gcm_seal(aes_key, public_bytes(private_key.public_key()))
    hello = VERSION_FIRST + _mode(serial) + _counted(serial.encode()) + tag + sealed
    answer = yield [Frame(0x1A, hello, variable=bytes((PROTOCOL_TYPE, 1, PROTOCOL_TYPE)))]
    protocol_type = answer.payload[0] if answer.payload else None
    try:
        reader = _Reader(_content(answer, 0x2A, skip=1))
    except Refused as refused:
        refused.protocol_type = protocol_type
        raise
    if protocol_type != PROTOCOL_TYPE:
        raise ProtocolError(f"AUTH-II succeeds under protocol type {protocol_type}, which was not offered")
    tag = reader.take(TAG)
    return _agreed(private_key, gcm_open(aes_key, tag, reader.rest()))


def _exchange_keys_g1(
    serial: str, code: str, lower_case: bool, private_key: ec.EllipticCurvePrivateKey
) -> Generator[list[Frame], Frame, bytes]:
    aes_key = share_key_s1(code, serial, lower_case)[:16]
    sealed = cbc_seal(aes_key, public_bytes(private_key.public_key()))
    hello = VERSION_FIRST + _mode(serial) + _counted(serial.encode()) + sealed
    return _agreed(private_key, cbc_open(aes_key, _content((yield [Frame(0x12, hello)]), 0x22)))


def _agreed(private_key: ec.EllipticCurvePrivateKey, point: bytes) -> bytes:
    try:
        peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), point)
    except ValueError as error:
        raise ProtocolError("public key of the LBS is not a point of P-384") from error
    return master_key(private_key.exchange(ec.ECDH(), peer))


def _das_address(serial: str, session_key: bytes, *before: Frame) -> Generator[list[Frame], Frame, Das]:
    question = json.dumps({"DevSerial": serial, "Type": "DAS", "Mode": 0}, separators=(",", ":"))
    answer = yield [*before, Frame(0xA0, VERSION + cbc_seal(session_key, question.encode()))]
    text = cbc_open(session_key, _content(answer, 0xB0))
    try:
        info = json.loads(text)["DasInfo"]
        das = Das(info["Address"], info["Port"], info["UdpPort"], info["Domain"], info["ServerID"])
    except (ValueError, KeyError, TypeError) as error:
        raise ProtocolError(f"DAS address is not as in 5.8: {error!r}") from error
    strings = (das.address, das.domain, das.server_id)
    ports = (das.port, das.udp_port)
    if not all(isinstance(s, str) and len(s.encode()) <= 63 for s in strings) or not all(type(p) is int for p in ports):
        raise ProtocolError("a member of the DAS address has a wrong type or length")
    return das


def _content(frame: Frame, head: int, skip: int = 0) -> bytes:
    """What follows the version and the result of a response, once the result is known to be 0."""
    if frame.head != head:
        raise ProtocolError(f"expected frame 0x{head:02x}, got 0x{frame.head:02x}")
    result_at = skip + len(VERSION)
    if len(frame.payload) <= result_at:
        raise ProtocolError(f"frame 0x{head:02x} is too short")
    if frame.payload[result_at] != SUCCESS:
        raise Refused(f"0x{head:02x}", frame.payload[result_at])
    return frame.payload[result_at + 1 :]


def _content_g0(frame: Frame, head: int, asked: bytes) -> bytes:
    """The same for a client of G0, which looks at the version: its own, or 01 00 00 [3.3]."""
    if frame.payload[:3] not in (VERSION_G0, asked):
        raise ProtocolError(f"frame 0x{frame.head:02x} has version {frame.payload[:3].hex()}")
    return _content(frame, head)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self, count: int) -> bytes:
        if len(self._data) < count:
            raise ProtocolError("frame is too short")
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._data))


def _sealed(reader: _Reader, key: bytes, length: int) -> bytes:
    """Tag, length byte, ciphertext [5.4]."""
    tag = reader.take(TAG)
    if reader.take(1)[0] != length:
        raise ProtocolError(f"a sealed field is not {length} bytes long")
    return gcm_open(key, tag, reader.take(length))


def _sealed_g1(reader: _Reader, key: bytes, length: int) -> bytes:
    """Length byte of the ciphertext, ciphertext [6, 7]."""
    sealed = reader.take(reader.take(1)[0])
    plaintext = cbc_open(key, sealed)
    if len(plaintext) != length:
        raise ProtocolError(f"a sealed field is not {length} bytes long")
    return plaintext


def _mode(serial: str) -> bytes:
    """SAP or licence [2]."""
    return bytes((1 if ":" in serial else 0,))


def _dev_id(raw: bytes) -> str:
    text = raw.decode("ascii", "replace")
    if not (text.isascii() and text.isprintable()):
        raise ProtocolError("the DevID is not printable ASCII")
    return text


def _counted(data: bytes) -> bytes:
    return bytes((len(data),)) + data


def drive(host: str, port: int, run: Run) -> Session:
    """Carries one run over one TCP connection."""
    try:
        with socket.create_connection((host, port), CONNECT_TIMEOUT) as stream:
            stream.settimeout(READ_TIMEOUT)
            frames = next(run)
            while True:
                for frame in frames:
                    for part in frame.parts():
                        stream.sendall(part)
                try:
                    frames = run.send(read_frame(stream))
                except StopIteration as done:
                    session: Session = done.value
                    return session
    except OSError as error:
        raise ProtocolError(f"LBS {host}:{port}: {error}") from error
