"""Prints, as python-amazon-ad-api reads them, the credentials of the accounts that are named.

usage: read_credentials.py ACCOUNT…
"""

import json
import sys

from ad_api.base.credential_provider import CredentialProvider

json.dump({name: CredentialProvider(account=name).credentials for name in sys.argv[1:]}, sys.stdout)
