"""The part of ansible.module_utils.basic that our modules use; ansible-core ships no types."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

class AnsibleModule:
    check_mode: bool
    params: dict[str, Any]
    tmpdir: str
    _diff: bool
    no_log_values: set[str]

    def __init__(
        self,
        argument_spec: Mapping[str, Mapping[str, Any]],
        bypass_checks: bool = ...,
        no_log: bool = ...,
        mutually_exclusive: Sequence[Sequence[str]] | None = ...,
        required_together: Sequence[Sequence[str]] | None = ...,
        required_one_of: Sequence[Sequence[str]] | None = ...,
        add_file_common_args: bool = ...,
        supports_check_mode: bool = ...,
        required_if: Sequence[Sequence[Any]] | None = ...,
        required_by: Mapping[str, str | Sequence[str]] | None = ...,
    ) -> None: ...
    def exit_json(self, **kwargs: Any) -> NoReturn: ...
    def fail_json(self, msg: str, **kwargs: Any) -> NoReturn: ...
    def warn(self, warning: str) -> None: ...
    def debug(self, msg: str) -> None: ...
    def log(self, msg: str, log_args: Mapping[str, Any] | None = ...) -> None: ...
    def get_bin_path(self, arg: str, required: bool = ..., opt_dirs: Sequence[str] | None = ...) -> str | None: ...
    def add_cleanup_file(self, path: str) -> None: ...
    def atomic_move(self, src: str, dest: str, unsafe_writes: bool = ..., keep_dest_attrs: bool = ...) -> None: ...
    def run_command(
        self,
        args: Sequence[str] | str,
        check_rc: bool = ...,
        close_fds: bool = ...,
        executable: str | None = ...,
        data: str | bytes | None = ...,
        binary_data: bool = ...,
        path_prefix: str | None = ...,
        cwd: str | None = ...,
        use_unsafe_shell: bool = ...,
        prompt_regex: str | None = ...,
        environ_update: Mapping[str, str] | None = ...,
        umask: int | None = ...,
        encoding: str | None = ...,
        errors: str = ...,
        expand_user_and_vars: bool = ...,
        pass_fds: Sequence[int] | None = ...,
        before_communicate_callback: Any = ...,
        ignore_invalid_cwd: bool = ...,
        handle_exceptions: bool = ...,
    ) -> tuple[int, str, str]: ...

def missing_required_lib(library: str, reason: str | None = ..., url: str | None = ...) -> str: ...
