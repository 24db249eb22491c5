"""Encrypted files."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

class KmsClient:
    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> Any: ...
    def unwrap_key(self, wrapped_key: Any, master_key_identifier: str) -> Any: ...

class KmsConnectionConfig:
    def __init__(
        self,
        *,
        kms_instance_id: str | None = None,
        kms_instance_url: str | None = None,
        key_access_token: str | None = None,
        custom_kms_conf: Mapping[str, str] | None = None,
    ) -> None: ...

class EncryptionConfiguration:
    def __init__(
        self,
        footer_key: str,
        *,
        column_keys: Mapping[str, Sequence[str]] | None = None,
        **options: Any,
    ) -> None: ...

class CryptoFactory:
    def __init__(self, kms_client_factory: Callable[[KmsConnectionConfig], KmsClient]) -> None: ...
    def file_encryption_properties(
        self,
        kms_connection_config: KmsConnectionConfig,
        encryption_config: EncryptionConfiguration,
    ) -> Any: ...
