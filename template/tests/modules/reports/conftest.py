from tests.configure import configure

__all__ = ["configure"]
