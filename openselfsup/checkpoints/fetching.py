"""Weights in a folder, or on the Hugging Face hub where a user names them so."""

import contextlib
from pathlib import Path

from ..errors import UserError

HUB = 'hf-hub:'
#: What hubs and libraries call the weights in a folder, the first that is there is read.
FILES = ('model.safetensors', 'pytorch_model.bin', 'open_clip_pytorch_model.bin',
         'model.bin', 'pytorch_model.pt')
#: What is said of weights beside them, by timm and by Hugging Face's transformers.
CONFIG, PREPROCESSOR = 'config.json', 'preprocessor_config.json'
_TOO_LARGE = ('model.safetensors.index.json', 'pytorch_model.bin.index.json')


def in_folder(folder: Path) -> Path | None:
    """Return the file of weights in a folder that was downloaded from a hub, None if none is.

    Raises:
        UserError: the weights are split over several files.
    """
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    for name in _TOO_LARGE:
        if (folder / name).is_file():
            raise UserError('the weights in this folder are split over several files',
                            where=str(folder), expected='one file of weights; '
                            'torch.save(model.state_dict(), FILE) makes one')
    return None


def is_on_hub(path: str | Path) -> bool:
    """Return whether ``path`` is a name on the hub, 'hf-hub:OWNER/NAME'."""
    return str(path).startswith(HUB)


def from_hub(name: str) -> Path:
    """Download the weights of a model of the Hugging Face hub; return where they are.

    What is said of them lies beside them, where there is such a file.

    Args:
        name: 'hf-hub:OWNER/NAME'. Files that were downloaded before are not asked for again.

    Raises:
        UserError: there is no such model, access to it is to be asked for, or there is no network.
    """
    import huggingface_hub
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
    )
    model = name.removeprefix(HUB)
    page = f'https://huggingface.co/{model}'
    try:
        for file in FILES:
            try:
                path = Path(huggingface_hub.hf_hub_download(model, file))
            except EntryNotFoundError:
                continue
            for beside in (CONFIG, PREPROCESSOR):
                with contextlib.suppress(EntryNotFoundError):
                    huggingface_hub.hf_hub_download(model, beside)
            return path
    except GatedRepoError:
        raise UserError('access to these weights has to be asked for', where=name,
                        expected=f'a request at {page}, then `hf auth login`') from None
    except RepositoryNotFoundError:
        raise UserError('the hub has no such model, or hides it', where=name,
                        expected=f'a model at {page}, and `hf auth login` if it is private'
                        ) from None
    except Exception as error:  # of the network, in as many kinds as there are libraries below
        reason = ' '.join(str(error).split())[:150]
        raise UserError(f'could not be downloaded: {type(error).__name__}: {reason}', where=name,
                        expected=f'a network, or the file from {page}') from None
    raise UserError('this model has no weights under a name that is known', where=name,
                    expected='one of ' + ', '.join(FILES) + f'; {page}/tree/main')
