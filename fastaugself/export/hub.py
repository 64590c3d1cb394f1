"""Uploads an export to the Hugging Face Hub in one commit."""

from pathlib import Path
from typing import Any

from ..errors import RunError, UsageError


def check_can_publish(name: str) -> Any:
    """Checks, without using the network, that an upload to the repository `name` is possible; returns the Hub's client.

    Raises UsageError, with the remedy, if the name is invalid, huggingface_hub is missing or there is no login.
    """
    if name.count("/") != 1:
        raise UsageError(f"--push must be USER/NAME or ORGANISATION/NAME, got {name}")
    try:
        import huggingface_hub
        from huggingface_hub.utils import validate_repo_id
    except ImportError as error:
        raise UsageError(f'--push needs a package: pip install "fastaugself[hub]" ({error})') from None
    try:
        validate_repo_id(name)
    except ValueError as error:
        raise UsageError(f"--push {name} is not a valid repository name: {error}") from None
    if not huggingface_hub.get_token():
        raise UsageError("--push needs a login of the Hugging Face Hub: `hf auth login`, or a token in HF_TOKEN")
    return huggingface_hub.HfApi()


def publish(api: Any, folder: Path, files: list[str], name: str) -> str:
    """Uploads files of `folder` to the repository `name` in one commit, and returns its URL.

    api: from `check_can_publish`. A missing repository is created as private. Raises RunError if the Hub refuses the
    upload or cannot be reached; the folder stays as it is.
    """
    try:
        url = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=files, commit_message="Weights exported by fastaugself"
        )
    except Exception as error:  # from the client, its HTTP library or the system
        message = (str(error).strip().splitlines() or ["no message"])[0]
        raise RunError(
            f"the upload to {name} failed ({type(error).__name__}: {message}); the export is complete in {folder}: run "
            f"the same command again, or `hf upload {name} {folder}`"
        ) from None
    return str(url)
