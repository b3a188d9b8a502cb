"""Self-check against the vectors 12.1 to 12.7 of the wire specification: python -m unittest vectors

The CONNECT tests let paho talk to a loopback socket that only records, and compare every byte.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import tempfile
import threading
import unittest
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

import channels
import das
import device
import options
import osap
import state as state_file

SERIAL = "SN0000001"
CODE = "ABCDEF"
DEV_ID = "0123456789abcdef0123456789abcdef"
SESSION_KEY = bytes.fromhex("00112233445566778899aabbccddeeff")
MK = b"C45938929A7F2133"
Z = bytes.fromhex("b85cacb5031be94aa170646a604994c2918dd1e4f431b63e8929cd2de34da6ddba6de32b45caab76c03e537e60bc4007")
SIG = "2a268456ab79a207c6f622748c50782e51592b6508cf66ddccf8f3f920f25d012c42d3ee7337091c2d609da8700eecaa"
DEVICE_PUBLIC = (
    "04e62a3a94e407b16bff82947b56a30380269da64a130371cb641501d9b90b226a93d2e8c059b26530f025bd8d83d55613"
    "cc96e994d700581e2d9785cb2974e5e0a0937e71f09c7b51178b40cadb28e1444e387b9c2b967add040b087157c39836"
)

# 12.2, complete frames
AUTH_I = (
    "1a82010101010102000009534e30303030303031c572faf184258e911675c2709b0b9dae57d031e066234f358bd98e18bad5a887ff53790e"
    "085f9ce38e64c80982f2c941b7dea8ae4ebd2c76382a55ddc783062d0867243611401945aa58f16b82cf7ea6ad704d86cabe85120c4f586e"
    "66414f2834e8cdcf0dc9eeb25a523b708a5991fac7"
)
AUTH_II = (
    "2a760101010000cf96ed157a296e47ccdb51d71bac282657a8ac661b6179460c3fdc605b64e0be53f4c268224ff78864935ac4259446d53f"
    "6b990ab289782decafe338d7a284e0b15487ff6d2dc9faa6f748a38db89f7d10219ebe0c22499fdd0019f767aeeada041a02d9d2b13bf743"
    "22b4c4276b6aa02c"
)
SEALED_KEYS = (
    "860101010000e1d8254e4737898a4d474d11556807e52079dcef9fc16f7cb63892341ef3373f9d1016b50c38d8ecd33b865021f5e6e83250"
    "46ac9a52b5a5fa292987b7ec852e3b1049fcff9fb10f2cf68832ffc75c8eb404"
) + SIG
APPLY = "7233010100" + SIG
APPLIED = "82" + SEALED_KEYS
ASK_DAS = "a033010100ea79f68347d6b285681cb3decb5519ed525d0ca773a3f68b1bf1c7f5928c572cb12262c13f2d623e4c0e857fa5c32fe9"
DAS = (
    "b0840101010000fedf9b7fb8c5cb507aff08c0b080f899a221314551fbe105284f0ea0be9fe8727736a5b6e94eec991e677f1b48c2faaa8b"
    "e4a93c706a99c4bf962028acda59e3dbf7d7bcfe9fd48b328fe72dc25282a4e2e9dfe7709761952157d767365cdbfd1a655ea1830e5459cb"
    "d075d5bb18e97b153a8bcd7817734a673cb1f39a15efee"
)

# 12.3
REFRESH_BY_ECDH = "4254010100203031323334353637383961626364656630313233343536373839616263646566" + SIG
REFRESHED_BY_ECDH = "62" + SEALED_KEYS
REFRESH = (
    "703e01010009534e3030303030303120303132333435363738396162636465663031323334353637383961626364656625b24842886d1199"
    "5b2cc02ccb9a6b81"
)
REFRESHED = "8024010100002c88895cec4a43528ec8ca86cc6ab5351b7430fe0e63a2790cdc48185f41463d"
REFRESH_PROOF = "9013010100f4bc9bf2d09c062222f8ff92d6776bef"
NEW_SESSION_KEY = bytes.fromhex("ffeeddccbbaa99887766554433221100")

# 12.4
LIGHT_CONNECT = (
    "10f10100044d51545404ec001e000000802f42617369632f70753263656e706c742f534e303030303030312f627265616b636f6e6e656374"
    + "00" * 89
    + "00502267f4136ec4c7140a1867c99414eb1771174004d06d2df5919cce78f83184271500777d3c966fdf8ef71d83c14a7abd23f2087c94"
    "10c038f71fa0602d720eceaeecac8ae117714d9b4339872b8d67040009534e30303030303031000474657374"
)
EVENT_PUBLISH = (
    "335f003b2f696f742f534e303030303030312f676c6f62616c2f302d4c616d702f6d6f64656c2f6576656e742f7265706f72742f416c6172"
    "6d2f536d6f6b6500048ce0ba39bb11f09797c349ea8b58949524f350d79c96dd16f366ce1b05d91295"
)
OPERATE = (
    "0ddeb5a60ed7d052811f60ffbd9a6df4b2b2f60b4d96d52b62ca06206835105697dc683d0ab07c1c876782d6c791590dab77c50fa7684e90"
    "07445c11d8d3f0b46bbd299d8830f16634ba829a0596785b"
)

# 12.5, recorded from the real client
REAL_AUTH_I = (
    "1a82010101010102000009534e303030303030314d7358d2fb9a7ce9e172f121c47f9cb3573d9ce1d3196ea058031c1625c749d8295e974a"
    "d11706c63c4a1def50c5858282b3a02be3560a8d80bda07611a6a86d604306c52c67a1987d3bf7fce44f0b5f1ab6e8c85c5b3490c591d9c7"
    "73970ae7f64baf55ed75c6b52e26f2a2a0def0dc90"
)
REAL_PUBLIC = (
    "040b873b21de2624b825109ae444425c562b73e2935b9954794ac0e70b8e47e15ffeda6d6db2949e8867d0165ba67b167be8b41aa9f0b885"
    "c94e9112ada9011c57663630e7152df998c90ae9df0d6d2e86ed5ae17c97be7da970c2da5bd0a2be61"
)
REAL_Z = "6dfb84737e4810e307927f328c0fdf8b88a9c329054a314cc178ea14d5c0f4d3f33d2926b2bfd0224dc20e4db15964c4"
REAL_MK = b"91950C6E59995787"
REAL_SIG = "a3019c54e0e3f82eb16852b6337a80f77545c2cfd96f07daa592c543ef2e7c52d0f19c307adec0608457fe7fb4f70083"
REAL_REFRESH = (
    "703e01010009534e303030303030312030313233343536373839616263646566303132333435363738396162636465667642"
    "59a62428054949930d529c774c6a"
)
REAL_REFRESHED = "80240101000033cfeab1f6156aa08fa4922503f9d330c6044a5b04c42d0eeae7a26e6e30efb7"
REAL_REFRESH_PROOF = "9013010100960226ba71fb515ccb364173c05abd29"
REAL_DAS = (
    "b0840101010000fedf9b7fb8c5cb507aff08c0b080f899a221314551fbe105284f0ea0be9fe8727736a5b6e94eec991e677f1b48c2faaa62"
    "7ab22e5368f7ed56d1a8d1a906bb7b812e07078e7be1d55b76b3965ec64959517992845f18ca8f4e4a6e562e08f548286374b23dcfd1122e"
    "3f919b8f99093be41cf28a2ec16763b2c5753cd015cdee"
)
REAL_CONNECT = (
    "10b10400044d51545404ee001e000000802f42617369632f70753263656e706c742f534e303030303030312f6669727374636f6e6e656374"
    + "00" * 89
    + "01906fe336fd44740c2d4016e182271b110b52bf29763211e1bfc7b2628fed42e4772fe852de9b73cfffc5ad6598d86b336653755d5287"
    "05c640e3cabf5f4d99fce4c9b6351e929656ad5aa4af7fb09ac85320b7ee1d1b442c3c3c65c65b05beb0ba2f8c28e266a373eaa9d460270693"
    "3c8aac346ff998a65f93d5e8a9fc16d92974cfbf95c37e650f63f15e75737032a93dfd7d9871371fabb2aec8851b82eed14015f77b881848a5"
    "b9f84c4edd29008611460f17eb24b7cf33490c61a7f4fb730be0568fc08e5a1a1f4c7cc602bd2f6d302ed4e4e11f603dfebaa886cda72c4a89"
    "ea817de31c0e59f58aac45868e1eb90b26df1fb897ff87300a7203b61ad3bb75228561dc24f088a90ad3c0403da755d0d6fb58562808b9b568"
    "2c9a1b113e57c476b54e8b904b3132ccf606394655ab6f72e3e89f5999cc70609726c7ca3597ee9ac13fabd108dced13d1c7e51a618300238d"
    "35ec088194623458c8ad9f69d3932dcbe6c4e078ad4cb2ef1aca334e4ee1834e0be3da1afe9a8e7f9eb1eb53d375eb275850a85f689a7815ec"
    "dc945b7c110009534e30303030303031000474657374"
)
REAL_ABOUT = {
    "FirmwareVersion": "V1.2.3 build 200101",
    "DevType": "DT1",
    "DevTypeDisplay": "Display1",
    "MAC": "02:00:00:00:00:01",
}
REAL_EVENT = (
    "33bf01003b2f696f742f534e303030303030312f676c6f62616c2f302d4c616d702f6d6f64656c2f6576656e742f7265706f72742f416c61"
    "726d2f536d6f6b6500048d7304341647a268ba4afaefbbf92d6503791668075a0a6ab8555d7a3a6d6415f15b0b7c8e739989f90b43a01a85"
    "7d6abc34ce68b13e0788d9a0acce57c50031d3ede08f63c61be80850d8966086da79ca1a8cd9db5d5a0c4646b70f81081680ae87ed872969"
    "202e1d6da087fc0675af548ebe175aa0a3381b42cbe59b2220d1"
)

# 12.6
G1_AUTH_I = (
    "127e0102000009534e3030303030303134a589a5e615f10c34880950b907f8a6e3ae8a300befecfb7e211d967f1010a95b83e31681ad6a65"
    "7490fa0d08c63120d9b645f4a1cbee8fc1ece7e45c59dbde554ee9660736c9d0195ddfed60544f4a22fc6a0ccc2a551600c84c86110fed95"
    "66828aeb0e51ac0ce362bf4ade7c384d"
)
G1_AUTH_II = (
    "227401010000bd8b2f91958c738f4859cdc716dc510a9db5fd78d3bd468164a2b3a08c85b4f08e02ffef76b153f955cf9b9e5ed56f945541"
    "167cfab2c883a23430fe89231b50820b86d9d32c43d13478a9c8f731e8373ad06be365a1a173fd8ee50c2fb5e657d0a4bd180154a5b23f97"
    "d9023adf2634"
)
G1_APPLIED = (
    "8286010101000030ac039850203dbe05b7cf1a8813136b8a031dd7b47cbb212e312a99388c38f7ff32118c78dd5cc91e4121895bacf7788f"
    "20d122272c4630dc15590587571f15f8f7a7ad69c8daa2ceb29ceaf024ae1a39c82a268456ab79a207c6f622748c50782e51592b6508cf66"
    "ddccf8f3f920f25d012c42d3ee7337091c2d609da8700eecaa"
)
G1_REAL_MK = b"484263583EA8F323"
G1_REAL_AUTH_I = (
    "127e0102000009534e30303030303031c43b9e01e66e3b9a5bdd8aff5aedbe177a534544a74231d30298afd4333074ac84c298b1b36d8ff5"
    "04e46ddc41622d8fe7dde05cfa09ed6a111cc0a14e79afd987f0f2638ac0083609093d957dcaa2bbe62d8d0d8253472c14390513520a9c43"
    "7ab9dc62ca926505f4f0d38d6f51fb1c"
)
G1_REAL_SIG = "264e2d2d8d3dedc53217ddd407dd6ef0504bed227cc01ae5b37b93c44cb0de1b6d97176cccf8f3be7acc6947bfab235e"
G1_REAL_CONNECT = (
    "10c10400044d51545404ee001e000000802f42617369632f70753263656e706c742f534e303030303030312f6669727374636f6e6e656374"
    + "00" * 89
    + "01a06fe336fd44740c2d4016e182271b110b52bf29763211e1bfc7b2628fed42e4772fe852de9b73cfffc5ad6598d86b336653755d528705"
    "c640e3cabf5f4d99fce4c9b6351e929656ad5aa4af7fb09ac85320b7ee1d1b442c3c3c65c65b05beb0ba2f8c28e266a373eaa9d460270693"
    "3c8a2897f171af3207018d8c79a3b59a9c24afe68ea8321af9dd4acb7bff07ab03fc630172d6bdeb7bbc9e09c34a5d2ba92364597c137e76"
    "34d845ff79b9bdf4771eb88fb35513eb7201928e55f3ce0545e596941f419fb08b0622eb63b488a59b2d5f0c608204189dd38cb77eaf940c"
    "3bdfb9bf115e8dc5687df0c2a17b6b1502f9149c7027298a6c3877eb89850cf74a2624b6c2d1ac6da8fc95d2877c2d7623116f046f926014"
    "6e6c81adbc79c1bbfb326a02e7aea5ece0f8e8eae8091c4c90d2071d56ffc13137a82338ebfc7ea34846aa6188aa39dec3e9f2c9ae018e4b"
    "ffd01476b021100c19158857836bc2a77857e6365fa906848e31dba4134c4baad51e9ce7da8057e664fe73c0e57755ae07fc4bbd1383dd43"
    "8ba1f13cdf403608d59136e23c4697900a4837c848b787bb94470009534e30303030303031000474657374"
)
G1_REAL_ABOUT = {"FirmwareVersion": "V1.2.3 build 200101", "DevType": "DT1", "DevTypeDisplay": "D1", "MAC": ""}

# 12.7, responses with the version that is sent to G0 [3.3]
G0_MK = b"73C04E7C44EC58DA"
G0_AUTH_I = "102f0102000009534e3030303030303111a7a47d661ccb21fffdd67772bb200e2a21caddfd61c471e2d70b3d94a723e2f5"
G0_AUTH_II = "20250100000022f471887253b738ff4347c77dcb7544e1d6c42576fba49795ef19a29bd57d3506"
G0_CREATE = "4024010100338079ddeb02e18b2e9048960e5ae4a910b3fe8987e29b111ef6f7e3ec9d5d8e78"
G0_CREATED = (
    "607701000000443029ac8c3ad82762f95ab6bab26c154507d70560685874197cb723d9e2058e96242d1c72a7839c925391176b2bcbcae694"
    "205093fdb15d9c621a66f7569a28f5df53012218c6ab47456d02face5ba9e78809d40ab82baffaf96154ca451252cab3d29f416efc6f2207"
    "a54f4e842ccfe29933"
)
G0_KEEP = (
    "3045010100332030313233343536373839616263646566303132333435363738396162636465668079ddeb02e18b2e9048960e5ae4a910b3"
    "fe8987e29b111ef6f7e3ec9d5d8e78"
)
G0_KEPT = (
    "50460100000044205093fdb15d9c621a66f7569a28f5df53012218c6ab47456d02face5ba9e78809d40ab82baffaf96154ca451252cab3d2"
    "9f416efc6f2207a54f4e842ccfe29933"
)


def frame(text: str) -> osap.Frame:
    """A recorded frame the way the device reads it."""
    ours, peers = socket.socketpair()
    with ours, peers:
        peers.sendall(bytes.fromhex(text))
        ours.settimeout(osap.READ_TIMEOUT)
        return osap.read_frame(ours)


def private_key(first: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(bytes(range(first, first + 48)), "big"), ec.SECP384R1())


def replay(run: osap.Run, exchange: list[tuple[list[str], str]]) -> osap.Session:
    """Compares what the run sends with the record and answers from the record."""
    sent = next(run)
    for expected, answer in exchange:
        if [one.encode().hex() for one in sent] != expected:
            raise AssertionError(f"{[one.encode().hex() for one in sent]} instead of {expected}")
        try:
            sent = run.send(frame(answer))
        except StopIteration as done:
            return done.value
    raise AssertionError("the run goes on after the record")


class ShareKey(unittest.TestCase):
    """12.1"""

    def test_both_cases(self) -> None:
        self.assertEqual(osap.share_key(CODE, SERIAL, False), b"6795A89138E70806D56CA66A1CA23E06")
        self.assertEqual(osap.share_key(CODE, SERIAL, True), b"1FEA32C8FF43B2BE9F5F1E5661E1B9DF")


class Runs(unittest.TestCase):
    """12.2, 12.3 and the refresh of 12.5, frame by frame"""

    def check(self, session: osap.Session, key: bytes, session_key: bytes, port: int = 8883) -> None:
        self.assertEqual(
            session,
            osap.Session(DEV_ID, key, session_key, osap.Das("127.0.0.1", port, port + 1, "das.local", "das1")),
        )

    def test_keys_of_the_exchange(self) -> None:
        self.assertEqual(osap.public_bytes(private_key(0).public_key()).hex(), DEVICE_PUBLIC)
        self.assertEqual(private_key(0).exchange(ec.ECDH(), private_key(0x30).public_key()), Z)
        self.assertEqual(osap.master_key(Z), MK)
        self.assertEqual(osap.signature(MK, SERIAL).hex(), SIG)

    def test_first_authentication(self) -> None:
        run = osap.authenticate(SERIAL, CODE, private_key=private_key(0))
        session = replay(run, [([AUTH_I], AUTH_II), ([APPLY], APPLIED), ([ASK_DAS], DAS)])
        self.check(session, MK, SESSION_KEY)

    def test_refresh_by_ecdh(self) -> None:
        run = osap.authenticate(SERIAL, CODE, dev_id=DEV_ID, private_key=private_key(0))
        session = replay(run, [([AUTH_I], AUTH_II), ([REFRESH_BY_ECDH], REFRESHED_BY_ECDH), ([ASK_DAS], DAS)])
        self.check(session, MK, SESSION_KEY)

    def test_plain_refresh(self) -> None:
        run = osap.plain_refresh(SERIAL, DEV_ID, MK, r1=b"\x11")
        self.assertEqual([one.encode().hex() for one in next(run)], [REFRESH])
        proof, question = run.send(frame(REFRESHED))
        self.assertEqual(proof.encode().hex(), REFRESH_PROOF)
        asked = json.loads(osap.cbc_open(NEW_SESSION_KEY, question.payload[3:]))
        self.assertEqual(asked, {"DevSerial": SERIAL, "Type": "DAS", "Mode": 0})

    def test_plain_refresh_of_the_real_client(self) -> None:
        run = osap.plain_refresh(SERIAL, DEV_ID, REAL_MK, r1=b"\xc5")
        session = replay(run, [([REAL_REFRESH], REAL_REFRESHED), ([REAL_REFRESH_PROOF, ASK_DAS], REAL_DAS)])
        self.check(session, REAL_MK, SESSION_KEY, port=19901)

    def test_keys_of_the_real_client(self) -> None:
        aes_key = osap.share_key(CODE, SERIAL, False)[:16]
        payload = bytes.fromhex(REAL_AUTH_I)[-113:]
        public = osap.gcm_open(aes_key, payload[:16], payload[16:])
        self.assertEqual(public.hex(), REAL_PUBLIC)
        peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), public)
        z = private_key(0x30).exchange(ec.ECDH(), peer)
        self.assertEqual(z.hex(), REAL_Z)
        self.assertEqual(osap.master_key(z), REAL_MK)
        self.assertEqual(osap.signature(REAL_MK, SERIAL).hex(), REAL_SIG)

    def test_parts_are_header_variable_header_payload(self) -> None:
        hello = next(osap.authenticate(SERIAL, CODE, private_key=private_key(0)))[0]
        lengths = [len(part) for part in hello.parts()]
        self.assertEqual(lengths, [3, 3, 127])


class Older(unittest.TestCase):
    """12.6 and 12.7"""

    def test_share_keys(self) -> None:
        self.assertEqual(osap.share_key_s1(CODE, SERIAL, False), b"703E9F9B91ACC2CAB0C38112094A2FAB")
        self.assertEqual(osap.share_key_s1(CODE, SERIAL, True), b"F2D2BCCB5FAEB876668BD1A3432DD45C")

    def check(self, session: osap.Session, key: bytes) -> None:
        self.assertEqual((session.dev_id, session.master_key, session.session_key), (DEV_ID, key, SESSION_KEY))

    def test_g1(self) -> None:
        for dev_id, request, head in ((None, APPLY, "82"), (DEV_ID, REFRESH_BY_ECDH, "62")):
            with self.subTest(head=head):
                run = osap.authenticate(SERIAL, CODE, generation=osap.G1, dev_id=dev_id, private_key=private_key(0))
                answer = head + G1_APPLIED[2:]
                session = replay(run, [([G1_AUTH_I], G1_AUTH_II), ([request], answer), ([ASK_DAS], DAS)])
                self.check(session, MK)

    def test_keys_of_the_real_client_of_g1(self) -> None:
        aes_key = osap.share_key_s1(CODE, SERIAL, False)[:16]
        public = osap.cbc_open(aes_key, bytes.fromhex(G1_REAL_AUTH_I)[-112:])
        peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), public)
        key = osap.master_key(private_key(0x30).exchange(ec.ECDH(), peer))
        self.assertEqual((key, osap.signature(key, SERIAL).hex()), (G1_REAL_MK, G1_REAL_SIG))

    def test_login_of_the_real_client_of_g1(self) -> None:
        record = das.full_record(SERIAL, DEV_ID, "127.0.0.1", g1=True, **G1_REAL_ABOUT)
        with Recorder(das.ACCEPTED) as recorder:
            ours = link(das.FULL, True, record)
            self.assertEqual(ours.connect("127.0.0.1", recorder.port), das.ACCEPTED)
            ours.disconnect()
        self.assertEqual([packet.hex() for packet in recorder.packets], [G1_REAL_CONNECT, "e000"])

    def test_g0(self) -> None:
        for dev_id, request, answer in ((None, G0_CREATE, G0_CREATED), (DEV_ID, G0_KEEP, G0_KEPT)):
            with self.subTest(dev_id=dev_id):
                run = osap.authenticate_g0(SERIAL, CODE, dev_id=dev_id, n1=b"\x11", n3=b"\x33")
                session = replay(run, [([G0_AUTH_I], G0_AUTH_II), ([request], answer), ([ASK_DAS], DAS)])
                self.check(session, G0_MK)

    def test_g0_takes_its_own_version_and_no_other(self) -> None:
        for version, accepted in (("010000", True), ("010200", True), ("010100", False)):
            run = osap.authenticate_g0(SERIAL, CODE, n1=b"\x11", n3=b"\x33")
            next(run)
            answer = frame(G0_AUTH_II[:4] + version + G0_AUTH_II[10:])
            with self.subTest(version=version), contextlib.ExitStack() as stack:
                if not accepted:
                    stack.enter_context(self.assertRaises(osap.ProtocolError))
                run.send(answer)

    def test_damaged_responses_end_the_run(self) -> None:
        """In L-CBC a damaged DevID or session key shows in the padding only: their bytes are not covered by SIG0."""
        for position in (*range(5, 7), *range(len(G0_AUTH_II) // 2 - 32, len(G0_AUTH_II) // 2)):
            run = osap.authenticate_g0(SERIAL, CODE, n1=b"\x11", n3=b"\x33")
            next(run)
            damaged = bytearray.fromhex(G0_AUTH_II)
            damaged[position] ^= 1
            with self.subTest(position=position), self.assertRaises((osap.ProtocolError, osap.Refused)):
                run.send(frame(damaged.hex()))

    def test_g0_names_itself_and_sends_no_password(self) -> None:
        with Recorder(das.ACCEPTED) as recorder:
            ours = das.Link(
                SERIAL,
                SESSION_KEY,
                login=das.FULL,
                first=True,
                record=b"{}",
                on_downlink=lambda message: None,
                client_id=DEV_ID,
            )
            self.assertEqual(ours.connect("127.0.0.1", recorder.port), das.ACCEPTED)
            ours.disconnect()
        connect = recorder.packets[0]
        self.assertEqual(connect[10], 0xEE & ~0x40)
        self.assertEqual(connect[13:47], b"\0\x20" + DEV_ID.encode())
        self.assertTrue(connect.endswith(SERIAL.encode()))


class Refusals(unittest.TestCase):
    def refused(self, answer: str) -> osap.Refused:
        run = osap.authenticate(SERIAL, CODE, private_key=private_key(0))
        next(run)
        with self.assertRaises(osap.Refused) as caught:
            run.send(frame(answer))
        return caught.exception

    def test_result_code(self) -> None:
        refused = self.refused("2a050101010001")
        self.assertEqual((refused.at, refused.code, refused.protocol_type), ("0x2a", 1, 1))

    def test_mismatch_with_and_without_group(self) -> None:
        for answer in ("2a050401010003", "2a080401010003020408"):
            refused = self.refused(answer)
            self.assertEqual((refused.code, refused.protocol_type), (3, 4))

    def test_result_of_the_dev_id_response(self) -> None:
        run = osap.authenticate(SERIAL, CODE, private_key=private_key(0))
        next(run)
        run.send(frame(AUTH_II))
        with self.assertRaises(osap.Refused) as caught:
            run.send(frame("820401010005"))
        self.assertEqual((caught.exception.at, caught.exception.code), ("0x82", 5))

    def test_damaged_responses_end_the_run(self) -> None:
        """Any bit of the sealed fields, the lengths or the signature; the version and nothing else is skipped."""
        for position in range(6, len(APPLIED) // 2):
            run = osap.authenticate(SERIAL, CODE, private_key=private_key(0))
            next(run)
            run.send(frame(AUTH_II))
            damaged = bytearray.fromhex(APPLIED)
            damaged[position] ^= 1
            with self.subTest(position=position), self.assertRaises((osap.ProtocolError, osap.Refused)):
                run.send(frame(damaged.hex()))

    def test_wrong_challenge(self) -> None:
        run = osap.plain_refresh(SERIAL, DEV_ID, MK, r1=b"\x12")
        next(run)
        with self.assertRaises(osap.ProtocolError):
            run.send(frame(REFRESHED))

    def test_closed_connection(self) -> None:
        for text in ("", "2a", "2a76", "2a760101"):
            ours, peers = socket.socketpair()
            with ours, peers:
                peers.sendall(bytes.fromhex(text))
                peers.close()
                with self.subTest(text=text), self.assertRaises(osap.ProtocolError):
                    osap.read_frame(ours)


class Envelope(unittest.TestCase):
    """Payloads of 12.4 and 12.5"""

    def test_event(self) -> None:
        topic = channels.event_topic(SERIAL, "Lamp/0/Alarm/Smoke").encode()
        for seq, application, recorded in (
            (6, '{"level":3}', EVENT_PUBLISH),
            (
                4,
                '{"level":3,"basic":{"dateTime":"2026-11-20T21:50:17.230+00:00",'
                '"UUID":"5fb66b24e52c11f1800094306f635ec7"}}',
                REAL_EVENT,
            ),
        ):
            payload = das.seal(SESSION_KEY, {"Seq": seq}, application)
            tail = len(topic).to_bytes(2, "big") + topic + (4).to_bytes(2, "big") + payload
            self.assertEqual((b"\x33" + osap.varint(len(tail)) + tail).hex(), recorded)

    def test_operate(self) -> None:
        general, application = das.unseal(SESSION_KEY, bytes.fromhex(OPERATE))
        self.assertEqual(general, {"CmdVer": "v3.0.0", "Seq": 9004, "MsgType": 1})
        self.assertEqual(application, b'{"data":{"count":3}}')

    def test_basic_has_the_recorded_form(self) -> None:
        event = channels.with_basic({"level": 3})
        self.assertRegex(event["basic"]["dateTime"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$")
        self.assertRegex(event["basic"]["UUID"], r"^[0-9a-f]{32}$")
        self.assertNotEqual(event["basic"]["UUID"], channels.with_basic({})["basic"]["UUID"])

    def test_foreign_key_is_refused(self) -> None:
        with self.assertRaises(osap.ProtocolError):
            das.unseal(NEW_SESSION_KEY, bytes.fromhex(OPERATE))


class Channels(unittest.TestCase):
    """Topics and bodies of 9.7 and 10"""

    def test_topics_of_parts_are_read_as_they_are_written(self) -> None:
        model = channels.Model("SUB1", "Lamp/0/Light/Blink", "service", "operate_reply")
        topic = channels.model_topic(SERIAL, model)
        self.assertEqual(topic, "/iot/SN0000001/SUB1/0-Lamp/model/service/operate_reply/Light/Blink")
        self.assertEqual(channels.model_message(topic), model)
        shadow = channels.Shadow(channels.GLOBAL, "0-Lamp", "set_reply")
        self.assertEqual(channels.shadow_message(channels.shadow_topic(SERIAL, shadow)), shadow)
        deliver = channels.pass_topic(SERIAL, "Lamp/0/Meter/Serial").replace("/report", "/deliver")
        self.assertEqual(channels.pass_message(deliver), (channels.GLOBAL, "Lamp/0/Meter/Serial"))
        self.assertEqual(channels.command_of("/SN0000001/7002/17"), channels.CHILD_VERDICT)
        for other in ("/iot/SN0000001/global/0-Lamp/basic/shadow/set", "/1100/13381", "/SN/x/17"):
            self.assertIsNone(channels.model_message(other))
            self.assertIsNone(channels.command_of(other))

    def test_wishes_come_one_by_one_or_as_a_list(self) -> None:
        wish = {"domain": "Light", "identifier": "Power", "value": True}
        for desired, wishes in ((wish, 1), ([wish, wish], 2), ([], 0)):
            found = channels.shadow_wishes("0-Lamp", {"state": {"desired": desired}})
            self.assertEqual(found, [("Lamp/0/Light/Power", True)] * wishes)

    def test_answers_of_the_base_and_access_domains(self) -> None:
        unbound = "<Response><Result>1055746</Result></Response>"
        self.assertEqual(channels.owner_of(unbound), (1055746, None))
        bound = '<?xml version="1.0"?><Response><Result>0</Result><User Id="u1"/></Response>'
        self.assertEqual(channels.owner_of(bound), (0, "u1"))
        self.assertEqual(channels.redirect_host("<Request><DomainName>lbs2</DomainName></Request>"), "lbs2")
        self.assertEqual(channels.pushed_keep_alive('{"KeepAlive":{"Interval":15}}'), 15)
        for broken in ('{"KeepAlive":{"Interval":0}}', '{"KeepAlive":{"Interval":true}}'):
            with self.subTest(broken=broken), self.assertRaises(osap.ProtocolError):
                channels.pushed_keep_alive(broken)

    def test_the_list_of_a_hub_tells_never_from_none_any_more(self) -> None:
        self.assertEqual(channels.child_list({}, ever=False), "{}")
        self.assertEqual(channels.child_list({}, ever=True), "[]")
        self.assertEqual(
            channels.child_list({"SUB1": True}, ever=True),
            '[{"connected":1,"childdevid":"SUB1","version":"V1.0.0","type":"SECOND","FirmwareIdentificationCode":""}]',
        )

    def test_a_hub_announces_its_domain_in_one_of_nine_slots(self) -> None:
        record = das.full_record(SERIAL, DEV_ID, "lbs", hub=True).decode()
        versions = record.partition('"SDKVersion":{')[2]
        self.assertIn('"7002":"V2.0.0"', versions)
        self.assertEqual(versions.count(":"), das.SDK_SLOTS)

    def test_what_passes_through_keeps_every_byte(self) -> None:
        body = channels.pass_body("application/x-meter", bytes(range(256)))
        self.assertEqual(channels.pass_content(body), ("application/x-meter", bytes(range(256))))


class Recorder:
    """Accepts one connection, answers CONNECT with the given code and keeps what came."""

    def __init__(self, code: int, then: list[bytes] | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._answers = [bytes((0x20, 2, 0, code)), *(then or [])]
        self.packets: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(osap.READ_TIMEOUT)
        self._listener.close()

    @property
    def port(self) -> int:
        return self._listener.getsockname()[1]

    def _serve(self) -> None:
        stream, _ = self._listener.accept()
        with stream:
            stream.settimeout(osap.READ_TIMEOUT)
            for answer in self._answers:
                self.packets.append(osap.read_frame(stream).encode())
                stream.sendall(answer)
            with contextlib.suppress(osap.ProtocolError, OSError):
                self.packets.append(osap.read_frame(stream).encode())


def link(login: str, first: bool, record: bytes) -> das.Link:
    return das.Link(SERIAL, SESSION_KEY, login=login, first=first, record=record, on_downlink=lambda message: None)


class Connect(unittest.TestCase):
    """What paho sends, byte for byte"""

    def test_full_login_of_the_real_client(self) -> None:
        record = das.full_record(SERIAL, DEV_ID, "127.0.0.1", **REAL_ABOUT)
        with Recorder(das.ACCEPTED) as recorder:
            ours = link(das.FULL, True, record)
            self.assertEqual(ours.connect("127.0.0.1", recorder.port), das.ACCEPTED)
            ours.disconnect()
        self.assertEqual([packet.hex() for packet in recorder.packets], [REAL_CONNECT, "e000"])

    def test_light_login(self) -> None:
        with Recorder(das.ACCEPTED) as recorder:
            ours = link(das.LIGHT, False, das.short_record(SERIAL, DEV_ID))
            self.assertEqual(ours.connect("127.0.0.1", recorder.port), das.ACCEPTED)
            ours.drop()
        self.assertEqual([packet.hex() for packet in recorder.packets], [LIGHT_CONNECT])

    def test_every_connack_code_is_seen(self) -> None:
        for code in (1, 2, 3, 4, 5, 10, 11, 12):
            with self.subTest(code=code), Recorder(code) as recorder:
                ours = link(das.FULL, True, b"{}")
                self.assertEqual(ours.connect("127.0.0.1", recorder.port), code)
            self.assertEqual(len(recorder.packets), 1)

    def test_subscribe_publish_ping_leave(self) -> None:
        answers = ("9003000101", "9003000201", "40020003", "d000", "b0020004", "b0020005")
        with Recorder(das.ACCEPTED, [bytes.fromhex(text) for text in answers]) as recorder:
            ours = link(das.FULL, True, b"{}")
            ours.connect("127.0.0.1", recorder.port)
            granted = [ours.subscribe(one) for one in das.filters(SERIAL)]
            published = ours.publish(channels.event_topic(SERIAL, "Lamp/0/Alarm/Smoke"), '{"level":3}', 6)
            ours.ping()
            for one in das.filters(SERIAL):
                ours.unsubscribe(one)
            ours.disconnect()
        self.assertEqual((granted, published), ([1, 1], (3, True)))
        # The recorded event has packet id 4 behind the topic; here it is the third packet with an id.
        end_of_topic = EVENT_PUBLISH.index(b"Smoke".hex()) + 10
        event = EVENT_PUBLISH[:end_of_topic] + "0003" + EVENT_PUBLISH[end_of_topic + 4 :]
        iot, v2 = b"/iot/SN0000001/#".hex(), b"/SN0000001/#".hex()
        self.assertEqual(
            [packet.hex() for packet in recorder.packets[1:]],
            [
                f"821500010010{iot}01",
                f"82110002000c{v2}01",
                event,
                "c000",
                f"a21400040010{iot}",
                f"a2100005000c{v2}",
                "e000",
            ],
        )


class CommandLine(unittest.TestCase):
    BASE = ["--lbs", "127.0.0.1:1", "--serial", SERIAL, "--code", CODE]

    def test_state_selects_the_run(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            state = Path(folder) / "state.json"
            session = osap.Session(DEV_ID, MK, SESSION_KEY, osap.Das("", 0, 0, "", ""))
            for write, run in (
                (lambda: None, "first"),
                (lambda: state.write_text(json.dumps({"dev_id": DEV_ID})), "ecdh_refresh"),
                (lambda: state_file.save(state, session), "plain_refresh"),
            ):
                write()
                arguments = options.parse([*self.BASE, "--state", str(state)])
                self.assertEqual(device.Device(arguments).run, run)
            self.assertEqual(state.stat().st_mode & 0o777, 0o600)
            self.assertEqual(json.loads(state.read_text()), {"dev_id": DEV_ID, "master_key": MK.decode()})

    def test_wrong_usage(self) -> None:
        for more in (
            ["--event", "{}"],
            ["--event", "[]", "--path", "Lamp/0/Alarm/Smoke"],
            ["--event", "{}", "--path", "Lamp/0/Alarm"],
            ["--count", "0"],
            ["--lose", "SUB1"],
            ["--query", "Lamp/0/Light"],
            ["--keep-alive", "0"],
        ):
            with (
                self.subTest(more=more),
                contextlib.redirect_stderr(io.StringIO()),
                self.assertRaises(SystemExit) as caught,
            ):
                options.parse([*self.BASE, *more])
            self.assertEqual(caught.exception.code, 2)

    def test_wrong_code_differs(self) -> None:
        self.assertNotEqual(options.parse([*self.BASE, "--wrong-code"]).code, CODE)


if __name__ == "__main__":
    unittest.main()
