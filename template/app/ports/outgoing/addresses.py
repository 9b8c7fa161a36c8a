"""Which addresses belong to everybody. The rest lies behind the service, where whoever names a URL has no business."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

# Gateways there pass on to the IPv4 address in the last 32 bits (RFC 6052).
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Tell whether an address is on the open network, also one that is written inside another one."""
    found = ip_address(address.partition("%")[0])
    inner = _inner(found) if isinstance(found, IPv6Address) else found
    # Python calls site-local addresses (RFC 3879) global.
    private = inner.is_multicast or inner.is_reserved or (isinstance(inner, IPv6Address) and inner.is_site_local)
    return inner.is_global and not private


def _inner(address: IPv6Address) -> IPv4Address | IPv6Address:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)
