"""Pushing to the Hub over a network that fails at times, and what to tell a user where it fails for good."""

import json
import shlex
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import TypeVar

from accelerate.utils import broadcast_object_list
from huggingface_hub import CommitInfo, EvalResult, HfApi
from huggingface_hub.errors import HfHubHTTPError
from transformers.utils import logging
from trl.trainer.utils import get_config_model_id

from .model_card import add_eval_results, add_longact, add_reward_curve


T = TypeVar("T")

HTTP = import_module(next(b for b in HfHubHTTPError.__mro__ if b.__name__ == "HTTPError").__module__.partition(".")[0])
"""What huggingface_hub speaks to the network with: httpx, and from version 2 on httpx2."""

WAITS = (1, 2, 4)
"""Seconds between tries, as huggingface_hub's own; it repeats uploads, but not what creates, validates or commits."""

NOT_PUSHED = ("_*", "checkpoint-*")
"""What `Trainer.push_to_hub` leaves out of `output_dir`."""

logger = logging.get_logger(__name__)


def persist(call: Callable[[], T]) -> T:
    """
    Repeat a call that the Hub or the network may fail at this moment and not at the next.

    Args:
        call (`Callable`):
            Call that does no harm twice.

    Returns:
        What the call returns.

    Raises:
        `Exception`: The call's own, at once where another try would not help, else after the last of `len(WAITS) + 1`.
    """
    for wait in WAITS:
        try:
            return call()
        except Exception as error:
            if not may_pass(error):
                raise
            logger.warning(f"The Hub did not answer as it should ({type(error).__name__}). Trying again in {wait} s.")
            time.sleep(wait)
    return call()


def may_pass(error: Exception) -> bool:
    """
    Whether an error is the Hub's or the network's, and not the request's.

    Args:
        error (`Exception`):
            What a call to the Hub raised.

    Returns:
        `bool`
    """
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code in (408, 429)
    # huggingface_hub reads the answer to a model card as JSON before it looks at the status
    return isinstance(error, (HTTP.TransportError, json.JSONDecodeError))


def upload(folder: str | Path, repo_id: str, **kwargs) -> CommitInfo:
    """
    Push a saved model. What the Hub already has is not sent again, and no commit is made where nothing is new.

    Args:
        folder (`str` or `Path`):
            Folder of the model.
        repo_id (`str`):
            Repository.
        kwargs:
            `commit_message`, `token` and `revision`, as in [`~huggingface_hub.HfApi.upload_folder`].

    Returns:
        `CommitInfo`
    """
    return HfApi().upload_folder(repo_id=repo_id, folder_path=folder, ignore_patterns=list(NOT_PUSHED), **kwargs)


def how_to_push(output_dir: str | Path, repo_id: str) -> str:
    """
    How a saved model is pushed without its trainer.

    Args:
        output_dir (`str` or `Path`):
            Folder of the saved model.
        repo_id (`str`):
            Repository.

    Returns:
        `str`: Shell command.
    """
    exclude = [part for pattern in NOT_PUSHED for part in ("--exclude", pattern)]
    return shlex.join(["hf", "upload", repo_id, str(output_dir), ".", *exclude])


def warn_of_failure(push: Future, note: str) -> Event:
    """
    Log what goes wrong with a push in the background, which transformers keeps to itself.

    Args:
        push (`Future`):
            The push.
        note (`str`):
            What to say beside the error.

    Returns:
        `Event`: Set when all has been said. Who waits for the push alone may go on before.
    """
    said = Event()

    def warn(push: Future) -> None:
        try:
            if not push.cancelled() and (error := push.exception()):
                logger.warning(f"{type(error).__name__}: {error}\n{note}")
        finally:
            said.set()

    push.add_done_callback(warn)
    return said


class HubMixin:
    """What changes in a trainer that pushes: it tries again, loses no model, and says on the card what the run was."""

    push_in_progress = None  # transformers sets it with the repository
    _unsaid: tuple[Event, ...] = ()
    """Of pushes in the background, whose failure may still have to be told."""

    def train(self, *args, **kwargs):
        try:
            return super().train(*args, **kwargs)  # which waits for its pushes at its end
        except Exception:
            self._finish_current_push()
            raise

    def _finish_current_push(self) -> None:
        super()._finish_current_push()
        for said in self._unsaid:
            said.wait()
        self._unsaid = ()

    @property
    def is_pushing(self) -> bool:
        """Whether files of `output_dir` are being read, hashed and sent in the background: they must not change."""
        return self.push_in_progress is not None and not self.push_in_progress.is_done()

    def init_hf_repo(self, token: str | None = None, **kwargs) -> None:
        create, error = super().init_hf_repo, None
        try:
            persist(lambda: create(token, **kwargs))
        except Exception as raised:
            error = raised
            if self.args.push_to_hub:  # asked for before training, not by `push_to_hub`
                error.add_note(
                    "LongAct creates the repository before it trains. To train without the Hub, set "
                    f"`push_to_hub=False` and push the model later with `{self._push_command()}`."
                )
        # The first rank alone asks the Hub. Without its answer the others would wait for it in the next collective.
        outcome = broadcast_object_list([self.hub_model_id, error and f"{type(error).__name__}: {error}"])
        if error:
            raise error
        self.hub_model_id, failure = outcome
        if failure:
            raise RuntimeError(f"The first rank could not create the repository. {failure}")

    def push_to_hub(
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        **kwargs,
    ) -> CommitInfo | Future | None:
        """
        Save the model and push it. A failure of the network is waited out for some seconds.

        Args:
            commit_message, blocking, token, revision:
                As in [`~transformers.Trainer.push_to_hub`].
            kwargs:
                Arguments of `create_model_card`, e.g. `license="apache-2.0"`.

        Returns:
            `CommitInfo`, or a `Future` of it if not `blocking` and the Hub answered at once; `None` on all ranks but
                the first.

        Raises:
            `Exception`: What the Hub refuses or the network fails to do, with a note that says how to push again.
        """
        self._finish_current_push()
        # Before the Hub is asked for anything. Trainer does this after it has asked.
        kwargs.setdefault("model_name", self._repo_id().split("/")[-1])
        self.save_model(_internal_call=True)
        self.create_model_card(**{name: value for name, value in kwargs.items() if name != "private"})
        note = (
            f"The push failed, but nothing is lost: the model is saved in {self.args.output_dir}. Once the cause "
            f"above is removed, push it again with `{self._push_command()}`."
        )
        try:
            push = self._push(super().push_to_hub, commit_message, blocking, token, revision, **kwargs)
        except Exception as error:
            error.add_note(note)
            raise
        if isinstance(push, Future):
            self._unsaid += (warn_of_failure(push, note),)
        return push

    def create_model_card(
        self,
        model_name: str | None = None,
        dataset_name: str | Sequence[str] | None = None,
        tags: str | list[str] | None = None,
        license: str | None = None,
        eval_results: Sequence[EvalResult] = (),
    ):
        """
        Write `README.md` into `output_dir`: TRL's, and what the run was.

        Args:
            model_name (`str`, *optional*):
                Name of the model.
            dataset_name (`str` or `Sequence[str]`, *optional*):
                Hub ids of the training data, and names of other data.
            tags (`str` or `list[str]`, *optional*):
                More tags than `trl`, `grpo` and `longact`.
            license (`str`, *optional*):
                Licence of the model as the Hub names it, e.g. `"apache-2.0"`.
            eval_results (`Sequence[EvalResult]`, *optional*):
                Numbers, with the protocol in `metric_name`.
        """
        if self.is_world_process_zero() and not self.is_pushing:
            super().create_model_card(model_name, tags=tags)
            base_model = get_config_model_id(self.model.config)
            datasets = [dataset_name] if isinstance(dataset_name, str) else dataset_name or ()
            # Drawing takes longer than a small checkpoint, and nobody sees the curve of a save that is not pushed.
            draws = self.args.push_to_hub or not self.control.should_save
            card = Path(self.args.output_dir, "README.md")
            add_longact(card, self.mask_refresh, self.state.log_history, base_model, datasets, license)
            if draws:
                add_reward_curve(card, self.state.log_history)
            if eval_results:
                add_eval_results(card, eval_results)

    def _push(self, push, commit_message, blocking, token, revision, **kwargs):
        try:
            return push(commit_message, blocking, token, revision, **kwargs)
        except Exception as error:
            if self.hub_model_id is None or not may_pass(error):
                raise
        options = {"token": token or self.args.hub_token, "revision": revision or self.args.hub_revision}
        folder, repo_id = self.args.output_dir, self.hub_model_id
        return persist(lambda: upload(folder, repo_id, commit_message=commit_message, **options))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        before = self._pushes()
        super()._push_from_checkpoint(checkpoint_folder)
        for push in self._pushes() - before:
            note = f"{checkpoint_folder} was not pushed, but is complete. The next save pushes again."
            self._unsaid += (warn_of_failure(push, note),)

    def _pushes(self) -> set[Future]:
        return set(self.push_in_progress.jobs) if self.push_in_progress else set()

    def _repo_id(self) -> str:
        return self.hub_model_id or self.args.hub_model_id or Path(self.args.output_dir).absolute().name

    def _push_command(self) -> str:
        return how_to_push(self.args.output_dir, self._repo_id())
