"""What a stranger's tests prove a head with: the contract that every head of ifcar keeps."""

from ifcar.testing.head_contract import HeadContract

__all__ = ["HeadContract"]
