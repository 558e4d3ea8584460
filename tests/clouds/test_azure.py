"""Keys, connection strings and signatures of Azure."""

import pytest
from azure_emulator import ACCOUNT, KEY, OTHER_KEY, connection

import stemstore
from stemstore.errors import StorageError
from stemstore.places.address import Address
from stemstore.places.link import link_to

pytestmark = pytest.mark.clouds

SIGNATURE = "c2lnbmF0dXJlIG9mIHRoZSB0ZXN0cw%3D%3D"


def test_a_wrong_key_opens_nothing(az):
    """The message names the address and what to do, and tells no key."""
    with pytest.raises(StorageError, match=r"cannot read 'az://.*Give credentials by the environment") as refused:
        stemstore.open(f"{az.box}/scan.zarr", storage_options={"connection_string": connection(az.proxy, OTHER_KEY)})
    assert OTHER_KEY not in repr(refused.value)
    assert "AccountKey" not in repr(refused.value)


def test_signatures_may_stand_in_the_address():
    """A shared access signature behind a question mark signs the requests, and is shown nowhere."""
    pytest.importorskip("adlfs", reason="needs adlfs (extra cloud)")
    address = Address(f"az://box/scan.zarr?sv=2024-11-04&sp=r&sig={SIGNATURE}", {"account_name": ACCOUNT})
    link = link_to(address)
    assert link.at("zarr.json") == "box/scan.zarr/zarr.json"
    assert link.fs.sas_token == f"?sv=2024-11-04&sp=r&sig={SIGNATURE}"
    assert SIGNATURE[:16] not in repr(address)
    assert KEY not in address.censor(f"bad signature {SIGNATURE}")
    assert SIGNATURE not in address.censor(f"bad signature {SIGNATURE}")
