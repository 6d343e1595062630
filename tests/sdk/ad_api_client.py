"""Unmodified python-amazon-ad-api, pointed at adsproxy in one of the ways an app can.

usage: ad_api_client.py prefix|placeholder|shim|key PROXY_ADDRESS ALIAS SECONDS

With `key`, ALIAS is a caller's key, which stands in the place of the access token.

Calls on for SECONDS and prints one line per thing it got; any failure is an exception.
"""

import sys
import time
from types import SimpleNamespace

from ad_api.api import Profiles, Reports
from ad_api.api.sp import CampaignsV3
from ad_api.auth import AccessTokenClient

REPORT = {
    "name": "campaigns by day",
    "startDate": "2026-11-01",
    "endDate": "2026-11-07",
    "configuration": {
        "adProduct": "SPONSORED_PRODUCTS",
        "groupBy": ["campaign"],
        "columns": ["campaignId", "impressions", "clicks", "cost"],
        "reportTypeId": "spCampaigns",
        "timeUnit": "SUMMARY",
        "format": "GZIP_JSON",
    },
}


def settings(way, proxy, alias):
    """What the app must set: the client refuses to start without client id, secret and token."""
    endpoint = f"http://{proxy}"
    refresh_token, access_token = "unused", None
    if way == "prefix":
        endpoint += f"/a/{alias}"
        access_token = "unused"
    elif way in ("placeholder", "key"):
        access_token = f"Atza|{alias}"
    elif way == "shim":
        # The client fetches a token by itself, from adsproxy instead of Login with Amazon.
        AccessTokenClient.scheme, AccessTokenClient.host = "http://", proxy
        refresh_token = f"Atzr|{alias}"
    else:
        sys.exit(__doc__)
    credentials = {"client_id": "unused", "client_secret": "unused", "refresh_token": refresh_token}
    return endpoint, access_token, credentials


def fetch_report(reports):
    report_id = reports.post_report(body=REPORT).payload["reportId"]
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        report = reports.get_report(report_id).payload
        if report["status"] == "COMPLETED":
            # From the presigned address itself, not through adsproxy and without a token.
            return reports.download_report(url=report["url"], format="data").payload
        assert report["status"] in ("PENDING", "PROCESSING"), report
        time.sleep(0.1)
    raise TimeoutError(f"report {report_id} was never completed")


def main(way, proxy, alias, seconds):
    endpoint, access_token, credentials = settings(way, proxy, alias)
    options = {
        "marketplace": SimpleNamespace(endpoint=endpoint),
        "access_token": access_token,
        "timeout": 20,
    }
    profiles = Profiles(credentials=credentials, verify_additional_credentials=False, **options)
    deadline = time.monotonic() + float(seconds)
    rounds = 0
    while rounds == 0 or time.monotonic() < deadline:
        found = profiles.list_profiles().payload
        print("profiles", len(found))
        credentials["profile_id"] = str(found[0]["profileId"])

        campaigns = CampaignsV3(credentials=credentials, **options).list_campaigns(body={})
        print("campaigns", len(campaigns.payload["campaigns"]))
        rows = fetch_report(Reports(credentials=credentials, **options))
        assert isinstance(rows, list), rows
        print("report rows", len(rows))
        assert found and campaigns.payload["campaigns"] and rows, "something came back empty"
        rounds += 1
    print("rounds", rounds)


if __name__ == "__main__":
    main(*sys.argv[1:])
