from app.platform.resilience.retries import RetryBudget


def retries(budget: RetryBudget, requests: int) -> int:
    """Of so many that all fail, each of which would try twice more."""
    made = 0
    for _ in range(requests):
        budget.attempted()
        made += sum(budget.allow() for _ in range(2))
    return made


def test_a_failure_now_and_then_is_tried_again() -> None:
    budget = RetryBudget("test", share=0.2, reserve=10)
    for _ in range(100):
        for _ in range(10):
            budget.attempted()
        assert budget.allow()


def test_when_all_fails_retries_stay_a_share_of_the_load() -> None:
    assert retries(RetryBudget("test", share=0.2, reserve=10), 1_000) <= 10 + 0.2 * 1_000


def test_control_without_a_budget_they_are_twice_the_load() -> None:
    assert retries(RetryBudget("test", share=1_000, reserve=1_000), 1_000) == 2_000


def test_what_is_saved_up_is_bounded() -> None:
    budget = RetryBudget("test", share=1, reserve=5)
    for _ in range(100):
        budget.attempted()
    assert sum(budget.allow() for _ in range(100)) == 5
