"""An export on the Hugging Face Hub: all of it in one commit, or nothing."""

from pathlib import Path
from typing import Any

from ..errors import RunError, UsageError


def check_can_publish(name: str) -> Any:
    """The Hub's client, before anything is exported: `name` can be a repository's and somebody is logged in.

    Raises UsageError where that is not so, with the remedy. Asks nothing of the network.
    """
    if name.count("/") != 1:
        raise UsageError(f"--push takes USER/NAME or ORGANISATION/NAME, got {name}")
    try:
        import huggingface_hub
        from huggingface_hub.utils import validate_repo_id
    except ImportError as error:
        raise UsageError(f'--push needs a package: pip install "fastaugself[hub]" ({error})') from None
    try:
        validate_repo_id(name)
    except ValueError as error:
        raise UsageError(f"--push {name} is not a name that the Hub takes: {error}") from None
    if not huggingface_hub.get_token():
        raise UsageError("--push needs a login of the Hugging Face Hub: `hf auth login`, or a token in HF_TOKEN")
    return huggingface_hub.HfApi()


def publish(api: Any, folder: Path, files: list[str], name: str) -> str:
    """Uploads these files of `folder` to the repository `name`, and gives its address.

    api: from `check_can_publish`. A repository that is not there is made, private; one that is there gets a new commit.
    Raises RunError when the Hub refuses or cannot be reached; the folder stays as it is.
    """
    try:
        address = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=files, commit_message="Weights exported by fastaugself"
        )
    except Exception as error:  # of the client, its HTTP library or the system
        said = (str(error).strip().splitlines() or ["no message"])[0]
        raise RunError(
            f"{name} could not be written to the Hub ({type(error).__name__}: {said}); the export is whole in "
            f"{folder}: the same command again, or `hf upload {name} {folder}`"
        ) from None
    return str(address)
