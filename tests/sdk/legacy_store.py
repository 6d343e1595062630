"""Writes a legacy store with the real `cryptography` package, as the programs did that kept it.

usage: legacy_store.py KEY[,KEY…] < RECORDS

RECORDS is JSON: a list of objects. Their `access_token` and `refresh_token` are encrypted (by
MultiFernet if there are several keys); a refresh token under `rotate_from` is encrypted under that
key first and then moved to the first key by `MultiFernet.rotate`. Prints the list.
"""

import json
import sys

from cryptography.fernet import Fernet, MultiFernet


def main(keys):
    keys = keys.split(",")
    fernet = MultiFernet([Fernet(key) for key in keys])
    records = json.load(sys.stdin)
    for record in records:
        older = record.pop("rotate_from", None)
        for field in ("access_token", "refresh_token"):
            if field in record:
                text = record[field].encode()
                token = fernet.rotate(Fernet(older).encrypt(text)) if older else fernet.encrypt(text)
                record[field] = token.decode()
    json.dump(records, sys.stdout, indent=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
