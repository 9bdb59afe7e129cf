import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.platform.http.fields import MAX_NAMES, FieldParams, Fields, Selection
from app.platform.http.problems import InvalidRequest

FIELDS = Fields(
    own=("id", "name", "asset_tag"), relations={"checkouts": ("id", "due_at", "note"), "current": ("id", "due_at")}
)


def select(fields: str | None = None, expand: str | None = None) -> Selection:
    return FIELDS.select(FieldParams(fields=fields, expand=expand))


def test_everything_of_its_own_and_no_relation_by_default():
    assert select() == Selection(own=("id", "name", "asset_tag"), relations={})


def test_named_fields_come_in_the_declared_order_and_once():
    assert select("asset_tag,id, asset_tag").own == ("id", "asset_tag")


def test_a_field_of_a_relation_includes_the_relation():
    assert select("asset_tag,checkouts.due_at") == Selection(own=("asset_tag",), relations={"checkouts": ("due_at",)})


def test_a_relation_named_as_a_field_comes_whole():
    assert select("name,checkouts") == Selection(own=("name",), relations={"checkouts": ("id", "due_at", "note")})


def test_expand_adds_the_relation_whole_to_all_fields():
    assert select(expand="current") == Selection(own=FIELDS.own, relations={"current": ("id", "due_at")})


def test_expand_leaves_chosen_fields_of_the_relation_as_they_are():
    assert select("name,checkouts.note", "checkouts,current").relations == {
        "checkouts": ("note",),
        "current": ("id", "due_at"),
    }


@pytest.mark.parametrize(
    ("fields", "expand", "parameter", "name"),
    [
        ("colour", None, "fields", "colour"),
        ("name,", None, "fields", "''"),
        ("checkouts.colour", None, "fields", "checkouts.colour"),
        ("checkouts.", None, "fields", "checkouts."),
        ("name.id", None, "fields", "name.id"),
        ("checkouts.id.id", None, "fields", "checkouts.id.id"),
        (None, "name", "expand", "name"),
        (None, "checkouts.id", "expand", "checkouts.id"),
    ],
)
def test_unknown_names_are_named(fields: str | None, expand: str | None, parameter: str, name: str):
    with pytest.raises(InvalidRequest) as refused:
        select(fields, expand)
    [error] = refused.value.errors or []
    assert error["loc"] == ["query", parameter]
    assert name in error["msg"]


def test_more_names_than_allowed_are_refused():
    with pytest.raises(InvalidRequest, match="not valid"):
        select(",".join(["id"] * (MAX_NAMES + 1)))


@given(st.text(max_size=1024), st.text(max_size=256))
def test_whatever_is_sent_gives_declared_names_or_a_problem(fields: str, expand: str):
    try:
        selection = select(fields, expand)
    except InvalidRequest:
        return
    assert set(selection.own) <= set(FIELDS.own)
    assert all(set(parts) <= set(FIELDS.relations[name]) for name, parts in selection.relations.items())
