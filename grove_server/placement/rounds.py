"""Rounds of a what-if: which gangs are decided when, as the placement loop would come to them.

Rules: a round decides minimums in order, then surplus pods. At its end those who have to leave are told, and their
gangs ask for new places. What a round put off, or opened, is decided in the next. When there is nothing more to decide
all who leave are gone, and everybody who waits is asked again: those for whom places are kept, those of the question,
and those who wait on the server. This ends when nobody leaves any more, or with the work that may be done; gangs that
were not come to then say so.

Not here: the decisions (`trial`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from grove_server.placement.gangs import is_placed, split_pods
from grove_server.placement.planned import PlannedGang
from grove_server.placement.trial import Trial
from grove_server.placement.trial_answer import TrialAnswer
from grove_server.placement.waiting import NOT_ANSWERED, QUEUE_BLOCKED, QUEUE_LIMIT, WAITING_FOR_BASE
from grove_server.placement.work import STEP_US

ROUNDS_MAX: Final = 256
"""Most rounds of one question; a few per gang that makes others leave are usual."""


class AbandonedError(Exception):
    """Nobody waits for the answer any more."""


class Rounds:
    """The gangs of one trial, and what was last said of each."""

    def __init__(self, trial: Trial, is_abandoned: Callable[[], bool] = lambda: False) -> None:
        self.trial = trial
        self.is_cut = False
        self._is_abandoned = is_abandoned
        self._gangs: dict[str, PlannedGang] = {}
        self._answers: dict[str, TrialAnswer] = {}
        self._left = ROUNDS_MAX
        self._others = dict.fromkeys(trial.enter_waiting())
        self._gangs.update((each.name, each) for each in trial.around.waiting())

    def run(
        self, planned: Iterable[PlannedGang], *, with_waiting: bool = False, is_all_new: bool = False
    ) -> list[TrialAnswer]:
        """Decide some gangs, and whom that concerns; return what comes of them in the order of the first round.

        `with_waiting`: the cluster is not as gangs that wait on the server know it, so those whom that may help ask in
        the first round, and with `is_all_new`, when queues changed, all of them.
        AbandonedError when nobody waits for the answer any more.
        """
        trial = self.trial
        mine = trial.in_order(planned)
        for each in mine:
            self._enter(each)
        due = {each.name: None for each in mine}
        if with_waiting:
            due |= self._those_who_wait(is_everybody=is_all_new) | self._helped()
        while due and self._left and not self.is_cut:
            self._left -= 1
            due = self._round(due) or self._after_leaving()
        self.is_cut |= bool(due)
        return [self._answer(each) for each in mine]

    def told_again(self, answers: Sequence[TrialAnswer]) -> list[TrialAnswer]:
        """Return what is said of the same gangs now."""
        return [self._answer(each.planned) for each in answers]

    # -- inside ------------------------------------------------------------------------------------------------------

    def _enter(self, planned: PlannedGang) -> None:
        self._gangs[planned.name] = planned
        self.trial.enter(planned)

    def _round(self, due: Iterable[str]) -> dict[str, None]:
        """Decide some gangs; return those that are to be decided again although nobody has left yet."""
        trial = self.trial
        trial.begin_round()
        gangs = trial.in_order(self._gangs[name] for name in due)
        decided = []
        for gang in gangs:
            if not self._may_go_on():
                break
            if not trial.room.leaving.is_displaced(gang.name):
                self._answers[gang.name] = trial.decide_minimum(gang, self._answers.get(gang.name))
                decided.append(gang.name)
        for name in decided:
            if self._may_go_on() and not trial.room.leaving.is_displaced(name):
                self._answers[name] = trial.decide_surplus(self._answers[name])
            trial.file(self._answers[name])
            self._others.pop(name, None)
        again = dict.fromkeys(trial.room.put_off)
        for name in trial.tell():
            known = self._gangs.get(name) or trial.around.gang_of(name)
            if known is not None:
                self._gangs[name] = known
                again[name] = None
        if trial.has_opened:
            again |= self._those_who_wait(is_everybody=True)
        if trial.has_unblocked or trial.room.has_unblocked:
            again |= self._waiting_for(QUEUE_BLOCKED)
        if trial.placed_now:
            again |= self._waiting_for(WAITING_FOR_BASE)
        return again

    def _after_leaving(self) -> dict[str, None]:
        """Let those go who leave; return everybody who may have a place then.

        Those for whom nobody could make room are asked once more before, and after: not every plan is lasting.
        """
        askers = dict.fromkeys(self.trial.room.take_askers(self.trial.lacks))
        if askers:
            return askers
        if self.is_cut or not self.trial.room.leaving.go():
            return {}
        return self._helped()

    def _helped(self) -> dict[str, None]:
        """Return the gangs that what grew may help, those included that wait on the server."""
        due = dict.fromkeys(name for name in self.trial.room.kept if name in self._gangs)
        due |= self._those_who_wait(is_everybody=False)
        due |= self._waiting_for(QUEUE_LIMIT)
        due |= dict.fromkeys(self.trial.wake_ups.take_due()) | dict.fromkeys(self.trial.wake_ups.woken(0))
        bases = {(self._gangs[name].gang.set_uid, self._gangs[name].gang.metadata.name) for name in due}
        for name in self._waiting_for(WAITING_FOR_BASE):
            if (self._gangs[name].gang.set_uid, self._gangs[name].gang.base_gang) in bases:
                due[name] = None
        return due

    def _those_who_wait(self, *, is_everybody: bool) -> dict[str, None]:
        """Return gangs that wait on the server and of which nobody knows what they lack, or everybody who lacks any."""
        if is_everybody:
            return dict.fromkeys(name for name in self._gangs if self.trial.lacks(name))
        return {name: None for name in self._others if self.trial.lacks(name)}

    def _waiting_for(self, reason: str) -> dict[str, None]:
        return dict.fromkeys(name for name, answer in self._answers.items() if answer.waiting_reason == reason)

    def _may_go_on(self) -> bool:
        if self._is_abandoned():
            raise AbandonedError
        work = self.trial.work
        self.is_cut |= work is not None and work.is_spent
        return not self.is_cut

    def _answer(self, planned: PlannedGang) -> TrialAnswer:
        answer = self._answers.get(planned.name)
        work = self.trial.work
        if answer is not None and (not self.is_cut or answer.fits or answer.eviction is not None):
            return answer
        steps = 0 if work is None else work.total // STEP_US
        message = f"not answered within the budget of {steps} steps; ask about fewer gangs at once"
        if answer is not None:
            return replace(answer, waiting_reason=NOT_ANSWERED, waiting_message=message)
        if is_placed(planned.gang, split_pods(list(planned.pods))):
            message = f"its surplus was {message}"
        return TrialAnswer(planned=planned, waiting_reason=NOT_ANSWERED, waiting_message=message)
