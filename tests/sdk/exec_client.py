"""Unmodified python-amazon-ad-api under `adsproxy exec`: everything comes from the environment.

usage: exec_client.py env|code      where the client's credentials come from
"""

import os
import sys
from types import SimpleNamespace

from ad_api.api import Profiles
from ad_api.api.sp import CampaignsV3

UNUSED = {"client_id": "unused", "client_secret": "unused", "refresh_token": "unused"}


def main(way):
    options = {
        "marketplace": SimpleNamespace(endpoint=os.environ["ADS_API_BASE_URL"]),
        "access_token": os.environ["AMAZON_ADS_ACCESS_TOKEN"],
        "timeout": 20,
    }
    credentials = None if way == "env" else dict(UNUSED)
    found = Profiles(credentials=credentials, verify_additional_credentials=False, **options)
    found = found.list_profiles().payload
    print("profiles", len(found))
    if credentials:
        credentials["profile_id"] = str(found[0]["profileId"])
    campaigns = CampaignsV3(credentials=credentials, **options).list_campaigns(body={})
    print("campaigns", len(campaigns.payload["campaigns"]))


if __name__ == "__main__":
    main(sys.argv[1])
