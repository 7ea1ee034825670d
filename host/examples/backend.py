#!/usr/bin/env python3
"""A small charging backend that isn't written in Rust: it keeps its assets and offerings in memory, and lets plugins
have their say at every step of an asset's life, through the HTTP API of `billhook serve`.

Run it with the example plugin, whose refusals it shows:

    billhook loadplugin test-resource-1.0.zip
    export BILLHOOK_TOKEN=$(billhook token create --scope emit --name backend)
    billhook serve &
    python3 backend.py

It needs Python 3.9 and nothing else. `Billhook` is the client, to be copied; `Shop` is the backend; `tell` is the
story.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import ssl
import sys
import time
import urllib.parse
import uuid
from datetime import datetime, timezone
from typing import Any, Callable, Iterator, Optional

# How long it may take to reach the server, and the server to answer, in seconds: the latter longer than any hook may.
CONNECT_TIMEOUT, ANSWER_TIMEOUT = 5.0, 60.0
# How often something is asked for that doesn't go now.
ATTEMPTS = 3
# How long it waits for its next attempt, in seconds; where the server asks for more, it fails.
LONGEST_DELAY = 10.0


class Failure(Exception):
    """A request that came to nothing, or nobody knows to what."""

    def __init__(self, detail: str, *, outcome_unknown: bool = False, is_temporary: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.outcome_unknown = outcome_unknown
        """Whether what was asked for may have been done all the same. Find out before it is asked for again."""
        self.is_temporary = is_temporary
        """Whether it may go better soon."""
        self.retry_after: Optional[float] = None
        """When it makes sense to try again, in seconds, where the server says so."""


class NoAnswer(Failure):
    """The server can't be reached, or its answer was lost."""


class Refusal(Failure):
    """The server answered that it didn't do what was asked for, and why: a problem of RFC 9457."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: Optional[str] = None,
        plugin: Optional[str] = None,
        outcome_unknown: bool = False,
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(detail, outcome_unknown=outcome_unknown, is_temporary=status in (502, 503, 504))
        self.status = status
        self.kind = kind
        """What kind of refusal of a plugin or a handler it is; none if the server itself refuses."""
        self.plugin = plugin
        self.retry_after = retry_after

    @classmethod
    def of_answer(cls, status: int, headers: Any, body: bytes) -> Refusal:
        """What an answer with a status other than 2xx says."""
        try:
            problem = json.loads(body) if headers.get_content_type() == "application/problem+json" else None
        except ValueError:
            problem = None
        if not isinstance(problem, dict):
            # It comes from something in between, and who knows whether that passed the request on before it failed.
            return cls(status, "this is no answer of billhook's", outcome_unknown=status >= 500)
        seconds = headers.get("Retry-After", "")
        return cls.of_problem({"status": status, **problem}, float(seconds) if seconds.isdecimal() else None)

    @classmethod
    def of_problem(cls, problem: dict, retry_after: Optional[float] = None) -> Refusal:
        """A problem, or the refusal of one of the assets that were notified, which has a `message` for a `detail`."""
        if "retry_after_ms" in problem:
            retry_after = problem["retry_after_ms"] / 1000
        return cls(
            problem["status"],
            problem.get("detail") or problem.get("message") or problem.get("title") or "it doesn't say why",
            kind=problem.get("kind"),
            plugin=problem.get("plugin"),
            outcome_unknown=problem.get("outcome_unknown", False),
            retry_after=retry_after,
        )

    def __str__(self) -> str:
        by = f" by the plugin {self.plugin}" if self.plugin else ""
        unknown = "; nobody knows whether it was done" if self.outcome_unknown else ""
        return f"refused{by} with {self.status}: {self.detail}{unknown}"


class Billhook:
    """A client of `billhook serve`. It keeps nothing between requests, so that threads may share it."""

    def __init__(self, base_url: str, token: Optional[str] = None, ca: Optional[str] = None) -> None:
        """`ca` is a file of certificates that are trusted in place of the system's."""
        url = urllib.parse.urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"{base_url!r} is no address of a server, such as http://127.0.0.1:8420")
        self.base_url = base_url.rstrip("/")
        self._host, self._port, self._path = url.hostname, url.port, url.path.rstrip("/")
        self._headers = {"Accept": "application/json, application/problem+json"}
        if token:
            if not token.isascii() or not token.isprintable():
                raise ValueError("the token is none: it has characters that no token has")
            self._headers["Authorization"] = f"Bearer {token}"
        self._tls: Optional[ssl.SSLContext] = None
        if url.scheme == "https":
            try:
                self._tls = ssl.create_default_context(cafile=ca)
            except OSError as error:
                raise ValueError(f"the certificates in {ca} can't be used: {error}") from error

    def wait_until_ready(self, seconds: float) -> None:
        """Waits for a server that is just being started."""
        end = time.monotonic() + seconds
        while True:
            try:
                self._ask("GET", "/readyz")
                return
            except Failure as failure:
                if not failure.is_temporary or time.monotonic() >= end:
                    raise
            time.sleep(0.2)

    def asset_types(self) -> list:
        """The asset types that can be sold, each with its `id`, its `name` and the `form` that sellers fill in."""
        return self.request("GET", "/charging/api/assetManagement/assetTypes")

    def hook(self, name: str, **objects: Any) -> dict:
        """Calls a hook of the plugin of the asset's type, with the objects that it takes.

        Answers what it changed on the asset, which is to be saved, under `changes`, and what else it answered. A hook
        that the plugin lacks changes nothing.
        """
        return self.request("POST", f"/api/v1/hooks/{name}", objects)

    def product_acquired(self, order: dict, contract: dict, assets: list) -> list:
        """A customer paid. Answers what became of each asset: one's refusal is no error and doesn't stop the others."""
        return self._notify("product_acquired", order, contract, assets)["outcomes"]

    def product_suspended(self, order: dict, contract: dict, assets: list) -> list:
        """A customer didn't pay. Answers as `product_acquired`."""
        return self._notify("product_suspended", order, contract, assets)["outcomes"]

    def usage_refreshed(self, order: dict, contract: dict, assets: list) -> dict:
        """Pulls usage before a customer is charged, and makes documents of it in the usage API."""
        # A server without a usage API won't have one in a second either.
        return self._notify("usage_refreshed", order, contract, assets, attempts=1)

    def _notify(self, what: str, order: dict, contract: dict, assets: list, attempts: int = ATTEMPTS) -> dict:
        body = {"order": order, "contract": contract, "assets": assets}
        return self.request("POST", f"/api/v1/notifications/{what}", body, attempts=attempts)

    def use_asset(self, asset: dict) -> None:
        """The asset is attached to a product: its plugin can't be removed as long as it is."""
        body = {"resource_type": asset["resource_type"]}
        self.request("PUT", f"/api/v1/assets/{quote(asset['id'])}", body, is_repeatable=True)

    def release_asset(self, asset: dict) -> None:
        """The asset is in use no more."""
        self.request("DELETE", f"/api/v1/assets/{quote(asset['id'])}")

    def emit(self, event: str, data: dict, event_id: str) -> dict:
        """Tells that an event happened. Under the same id, a UUID, it is recorded once, however often it is told."""
        body = {"event": event, "data": data, "id": event_id}
        return self.request("POST", "/api/v1/events", body, is_repeatable=True)

    def request(
        self,
        method: str,
        path: str,
        body: Optional[dict] = None,
        *,
        is_repeatable: bool = False,
        attempts: int = ATTEMPTS,
    ) -> Any:
        """Asks the server, and again where it may go better soon. Answers the JSON that it answered, if any.

        What may have been done isn't asked for again, unless doing it twice is as doing it once: a customer must not
        get twice what was ordered once.
        """
        attempt = 1
        while True:
            try:
                answer = self._ask(method, path, body)
                break
            except Failure as failure:
                is_safe = method == "GET" or is_repeatable or not failure.outcome_unknown
                delay = 0.5 * attempt if failure.retry_after is None else failure.retry_after
                if attempt == attempts or not failure.is_temporary or not is_safe or delay > LONGEST_DELAY:
                    raise
            time.sleep(delay)
            attempt += 1
        try:
            return json.loads(answer) if answer else None
        except ValueError as error:
            raise NoAnswer(f"{method} {path}: the answer is no JSON: {error}", outcome_unknown=True) from error

    def _ask(self, method: str, path: str, body: Optional[dict] = None) -> bytes:
        """Asks once, over a connection of its own."""
        payload, headers = None, dict(self._headers)
        if body is not None:
            payload, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        with contextlib.closing(self._connection()) as connection:
            # Before the connection is there, nothing was asked; from then on, anything may have been done.
            try:
                connection.connect()
            except ssl.SSLError as error:
                raise NoAnswer(f"the server at {self.base_url} can't be trusted: {error}") from error
            except OSError as error:
                raise NoAnswer(f"the server at {self.base_url} can't be reached: {error}", is_temporary=True) from error
            connection.sock.settimeout(ANSWER_TIMEOUT)
            try:
                connection.request(method, self._path + path, payload, headers)
                response = connection.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException) as error:
                # What comes from something that speaks no HTTP may have any characters.
                why = str(error) if isinstance(error, OSError) else repr(error)
                detail = f"{method} {path}: the answer was lost: {why}"
                raise NoAnswer(detail, outcome_unknown=True, is_temporary=True) from error
        if not 200 <= response.status < 300:
            raise Refusal.of_answer(response.status, response.headers, answer)
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_TIMEOUT)
        return http.client.HTTPSConnection(self._host, self._port, timeout=CONNECT_TIMEOUT, context=self._tls)


def quote(part: str) -> str:
    """A part of a path: ids are the backend's own, and may have any characters."""
    return urllib.parse.quote(part, safe="")


class Invalid(Exception):
    """What the backend itself refuses, whatever plugins say."""


def answer_to_client(problem: Exception) -> tuple[int, str]:
    """What the backend's own API answers where something was refused: the status and the sentence."""
    if isinstance(problem, Invalid):
        return 422, str(problem)
    if isinstance(problem, Refusal) and problem.kind and problem.status < 500:
        # It is for the client: the plugin, or a handler, says what is wrong with the request.
        return problem.status, problem.detail
    if isinstance(problem, Refusal) and problem.status == 503 and not problem.outcome_unknown:
        return 503, "this can't be done now: try again later"
    # It is for the operator's log. So is a refusal without a kind, such as 401: there the backend asked the wrong way.
    return 500, "this failed"


class Shop:
    """The backend. What it keeps in memory is in a real one's database, and its transactions are `all_or_nothing`."""

    def __init__(self, billhook: Billhook) -> None:
        self.billhook = billhook
        self.assets: dict[str, dict] = {}
        self.offerings: dict[str, dict] = {}

    def call(self, hook: str, asset: dict, **objects: Any) -> dict:
        """Calls a hook about an asset, and writes onto the asset what the hook changed."""
        answer = self.billhook.hook(hook, asset=asset, **objects)
        asset.update(answer["changes"])
        return answer

    @contextlib.contextmanager
    def all_or_nothing(self, asset: dict) -> Iterator[None]:
        """Lets an asset be what it was before, where not everything that is done to it goes through."""
        before = dict(asset)
        try:
            yield
        except Exception:
            asset.clear()
            asset.update(before)
            raise

    def create_asset(self, asset_type: dict, seller: dict, media_type: str, url: str, form: dict) -> dict:
        """A seller creates a digital asset."""
        name = asset_type["name"]
        self.billhook.hook(
            "on_pre_product_spec_validation", provider=seller, asset_t=name, media_type=media_type, url=url
        )
        check_asset(asset_type, media_type)
        asset = {
            "id": f"asset-{len(self.assets) + 1}",
            "provider": seller,
            "resource_type": name,
            "content_type": media_type,
            "download_link": url,
            "meta_info": fill_form(asset_type, form),
        }
        self.assets[asset["id"]] = asset
        try:
            self.call("on_post_product_spec_validation", asset, provider=seller)
        except Failure:
            del self.assets[asset["id"]]
            raise
        return asset

    def attach(self, asset: dict, product: str, specification: dict) -> None:
        """The catalogue made a product specification of the asset."""
        with self.all_or_nothing(asset):
            self.call("on_pre_product_spec_attachment", asset, product_spec=specification)
            asset.update(product_id=product, version=specification["version"])
            self.call("on_post_product_spec_attachment", asset, product_spec=specification)
            self.billhook.use_asset(asset)

    def upgrade(self, asset: dict, url: str, specification: dict) -> None:
        """The seller has a new version of the asset, at another address."""
        with self.all_or_nothing(asset):
            asset["download_link"] = url
            self.call("on_pre_product_spec_upgrade", asset, product_spec=specification)
            asset["version"] = specification["version"]
            self.call("on_post_product_spec_upgrade", asset, product_spec=specification)

    def offer(self, asset: dict, offering: dict) -> None:
        """The seller offers the asset for some price."""
        with self.all_or_nothing(asset):
            self.call("on_pre_product_offering_validation", asset, product_offering=offering)
            check_prices(offering)
            self.call("on_post_product_offering_validation", asset, product_offering=offering)
            self.offerings[offering["id"]] = {"offering": offering, "asset": asset["id"]}

    def assets_of(self, contract: dict) -> list:
        """The assets of a contract's offering. That of a bundle is replaced by those of all that it bundles."""
        return [self.assets[self.offerings[contract["offering"]["off_id"]]["asset"]]]

    def paid(self, order: dict) -> list:
        """The customer paid for an order. Answers the refusals, one for each asset that refused."""
        return self.notify(self.billhook.product_acquired, order)

    def not_paid(self, order: dict) -> list:
        """The customer stopped paying. Answers as `paid`."""
        return self.notify(self.billhook.product_suspended, order)

    def notify(self, tell_of: Callable[[dict, dict, list], list], order: dict) -> list:
        refusals = []
        for contract in order["contracts"]:
            refusals += self.save(tell_of(order, contract, self.assets_of(contract)))
        return refusals

    def meter(self, order: dict) -> list:
        """Usage is accounted before the customer is charged for it. As long as this answers failures, he can't be."""
        failures: list = []
        for contract in order["contracts"]:
            refreshed = self.billhook.usage_refreshed(order, contract, self.assets_of(contract))
            # What is recorded is recorded, whatever became of sending it: the contract's new values are saved first.
            contract["correlation_number"] = refreshed["correlation_number"]
            contract["last_usage"] = refreshed["last_usage"]
            failures += self.save(refreshed["outcomes"])
            if "failure" in refreshed:
                failures.append(refreshed["failure"])
        return failures

    def save(self, outcomes: list) -> list:
        """Saves what hooks changed on assets, and answers the refusals of the others."""
        refusals = []
        for outcome in outcomes:
            if outcome["outcome"] == "ok":
                self.assets[outcome["asset"]].update(outcome["changes"])
            else:
                refusals.append(Refusal.of_problem(outcome["refusal"]))
        return refusals

    def delete(self, asset: dict) -> None:
        """The seller takes the asset from the market."""
        self.billhook.release_asset(asset)
        del self.assets[asset["id"]]

    def close(self) -> None:
        """The backend is given up: its plugins may be removed. What is left was cut off, so refusals don't matter."""
        for asset in list(self.assets.values()):
            if "product_id" in asset:
                with contextlib.suppress(Failure):
                    self.delete(asset)


def check_asset(asset_type: dict, media_type: str) -> None:
    """The backend's own validation of a new asset: what its type allows."""
    name, media_types = asset_type["name"], asset_type["mediaTypes"]
    if "URL" not in asset_type["formats"]:
        raise Invalid(f"assets of the type {name} have to be uploaded")
    if media_types and media_type.lower() not in (allowed.lower() for allowed in media_types):
        raise Invalid(f"assets of the type {name} can't be {media_type}")


def fill_form(asset_type: dict, filled: dict) -> dict:
    """What a seller filled into the form of an asset type, and defaults for what was left empty."""
    meta_info = dict(filled)
    for name, field in asset_type.get("form", {}).items():
        if meta_info.get(name) in (None, ""):
            if field.get("default") not in (None, ""):
                meta_info[name] = field["default"]
            elif field.get("mandatory"):
                raise Invalid(f"{field.get('label', name)} has to be filled in")
    return meta_info


def check_prices(offering: dict) -> None:
    """The backend's own validation of an offering."""
    for price in offering["productOfferingPrice"]:
        if price["priceType"] not in ("one time", "recurring", "usage"):
            raise Invalid(f"{price['priceType']!r} is no type of prices")


class Unexpected(Exception):
    """The story goes another way than it should."""


def refused(status: int, act: Callable[..., Any], *arguments: Any) -> str:
    """Does what has to be refused, and tells what the backend's own API answers."""
    try:
        act(*arguments)
    except (Failure, Invalid) as problem:
        answered, sentence = answer_to_client(problem)
        if answered == status:
            return f"answered with {answered}: {sentence}"
        raise
    raise Unexpected(f"what should have been refused with {status} went through")


def done(what: str, failures: list) -> None:
    """Everything has to have gone well."""
    if failures:
        raise Unexpected(f"{what}: " + "; ".join(map(str, failures)))


def usage_price(unit: str) -> dict:
    """A price in the form of the catalogue."""
    return {
        "name": f"By the {unit}",
        "priceType": "usage",
        "unitOfMeasure": unit,
        "price": {"taxIncludedAmount": "0.12", "currencyCode": "EUR"},
    }


def tell(billhook: Billhook, name: str) -> None:
    """The story: finds the asset type, and tells an asset's life."""
    billhook.wait_until_ready(10)
    types = {asset_type["name"]: asset_type for asset_type in billhook.asset_types()}
    if name not in types:
        raise Unexpected(f"there is no asset type {name!r}; there are: {', '.join(types) or 'none'}")
    asset_type = types[name]
    fields = ", ".join(asset_type.get("form", {})) or "nothing"
    print(f"ready; {name} is the plugin {asset_type['id']}, whose form asks for {fields}")

    with contextlib.closing(Shop(billhook)) as shop:
        tell_life(shop, asset_type)


def tell_life(shop: Shop, asset_type: dict) -> None:
    """The whole life of an asset, from its creation to its end."""
    billhook = shop.billhook
    seller = {"username": "acme", "complete_name": "ACME Weather"}
    asset = shop.create_asset(asset_type, seller, "application/json", "https://api.acme.example/weather", {})
    print(f"created {asset['id']} with {json.dumps(asset['meta_info'])}")

    specification = {"name": "City weather", "version": "1.0", "lifecycleStatus": "Active"}
    shop.attach(asset, "product-1", specification)
    print(f"attached to {asset['product_id']}, and in use")

    offering = {"id": "offering-1", "name": "By the call", "productOfferingPrice": [usage_price("API call")]}
    shop.offer(asset, offering)
    print(f"offered as {offering['id']}")

    # What the plugin refuses, the backend's own client hears of; and nothing of it stays behind.
    create = (422, shop.create_asset, asset_type, seller, "application/json")
    print("an address without TLS is", refused(*create, "http://api.acme.example/plain", {}))
    form = {"auth_type": "oauth2"}
    print("OAuth2 without a server is", refused(*create, "https://api.acme.example/oauth2", form))
    retired = {**specification, "lifecycleStatus": "Retired"}
    print("a retired product is", refused(409, shop.attach, asset, "product-2", retired))
    strange = {**offering, "id": "offering-2", "productOfferingPrice": [usage_price("GB")]}
    print("a price in another unit is", refused(422, shop.offer, asset, strange))
    if list(shop.assets) != [asset["id"]] or asset["product_id"] != "product-1" or len(shop.offerings) != 1:
        raise Unexpected("something of what was refused stayed behind")

    contract = {
        "item_id": "item-1",
        "product_id": "inventory-1",
        "offering": {"off_id": offering["id"], "name": offering["name"]},
        "pricing_model": {"pay_per_use": offering["productOfferingPrice"]},
    }
    order = {
        "order_id": "order-1",
        "customer": {"username": "ada", "email": "ada@customer.example"},
        # With an offset: without a time zone, isoformat() writes a date that is refused.
        "date": datetime.now(timezone.utc).isoformat(),
        "contracts": [contract],
    }
    done("the payment", shop.paid(order))
    print(f"paid: {order['customer']['username']} has access")

    specifications = billhook.hook("get_usage_specs", asset_t=asset_type["name"])["usage_specs"]
    units = ", ".join(unit["name"] for unit in specifications)
    pending = shop.call("get_pending_accounting", asset, contract=contract, order=order)["pending_accounting"]
    print(f"metered by the {units}; {len(pending['records'])} records are pending")
    try:
        done("the usage", shop.meter(order))
        print(f"accounted for {contract['correlation_number']} records, and ready to be charged")
    except Refusal as refusal:
        if refusal.status != 503:
            raise
        print(f"not accounted for now: {refusal.detail}")

    # The id is saved with the customer, before the event is told: whatever happens then, it can be told again.
    customer, event_id = {"id": 12, "name": "Ada"}, str(uuid.uuid4())
    for is_repeated in (False, True):
        emitted = billhook.emit("clients.create", customer, event_id)
        if emitted["is_repeated"] is not is_repeated:
            raise Unexpected(f"of an event, is_repeated should be {is_repeated}: {emitted}")
    print(f"told twice of clients.create, which is recorded once, with {len(emitted['deliveries'])} deliveries")

    shop.upgrade(asset, "https://api.acme.example/v2/weather", {**specification, "version": "2.0"})
    print(f"upgraded to {asset['version']}, which is at {asset['download_link']}")

    done("the suspension", shop.not_paid(order))
    print(f"suspended: {order['customer']['username']} has no access any more")

    shop.delete(asset)
    print("deleted, and in use no more")


def main() -> int:
    parser = argparse.ArgumentParser(description="Plays a charging backend that uses `billhook serve`.")
    parser.add_argument("--url", default="http://127.0.0.1:8420", help="where the server is (default: %(default)s)")
    parser.add_argument(
        "--token",
        default=os.environ.get("BILLHOOK_TOKEN"),
        help="a token of scope emit; rather in the variable BILLHOOK_TOKEN, since others can see arguments",
    )
    parser.add_argument("--asset-type", default="Test Resource", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--ca", metavar="FILE", help="certificates that are trusted in place of the system's")
    arguments = parser.parse_args()
    try:
        tell(Billhook(arguments.url, arguments.token, arguments.ca), arguments.asset_type)
    except (Failure, Invalid, Unexpected, ValueError, OSError) as problem:
        print(f"backend.py: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
