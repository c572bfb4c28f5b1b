"""Command-line options for a user's own classes, and for the fields that these classes have.

Nothing here imports JAX, but the code of a user's own class may.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from resflax.declarations.own import NAMES_CLASS, UNRECORDED, Own, Values, own_fields_of
from resflax.experiment import Experiment, with_fields
from resflax.parts.source import field_texts

REGISTRY = ConstructorRegistry()
"""Says how tyro reads the types that it does not know."""


@REGISTRY.primitive_rule
def _own_class(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    if info.type is not Own:
        return None

    def read(given: list[str]) -> str:
        if not NAMES_CLASS.search(given[0]):
            raise ValueError("it must be FILE.py:CLASS")
        return given[0]  # the declaration turns it into an Own

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="FILE.py:CLASS",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, Own),
        str_from_instance=lambda own: [f"{own.file.name}:{own.name}"],
    )


@REGISTRY.primitive_rule
def _values(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    if info.type is not Values:
        return None

    def refuse(given: list[str]) -> Values:
        raise ValueError("values are given one by one, as in --model.arguments.width 16")

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="(one option for each)",
        instance_from_str=refuse,
        is_instance=lambda value: isinstance(value, Values),
        str_from_instance=lambda values: [str(values)],
    )


def own_fields(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """The values of the fields of a user's own classes, by the options' prefix.

    As in `{"model.shortcut": {"initial": 1.0}}`. A field whose value no run can record is left out.
    """
    fields = {name: dict(own.fields) for name, own in experiment.own_classes.items()}
    network = experiment.own_classes.get("model.network")
    if network is not None:
        del fields["model.network"]
        known = own_fields_of(network.load()) if network.is_loaded else {}
        defaults = {name: value for name, value in known.items() if value is not UNRECORDED}
        fields["model.arguments"] = defaults | dict(getattr(experiment.model, "arguments", {}))
    return {prefix: values for prefix, values in fields.items() if values}


def texts_of_own_fields(experiment: Experiment) -> dict[str, str]:
    """The texts below the fields of a user's own classes, by the fields' names."""
    loaded = [own for own in experiment.own_classes.values() if own.is_loaded]
    return {name: text for own in loaded for name, text in field_texts(own.source).items()}


def with_own_fields(
    options: type[Any], fields: Mapping[str, Mapping[str, Any]], texts: Mapping[str, str]
) -> type[Any]:
    """The options, to which options for the fields of a user's own classes are added.

    Args:
      options: a dataclass whose fields are options.
      fields: what `own_fields` returns.
      texts: the help texts of these fields by their names, as far as they have one.
    """
    added: list[tuple[str, Any, Any]] = []
    for prefix, values in fields.items():
        members = []
        for name, value in values.items():
            kind: Any = Annotated[_type_of(value), tyro.conf.arg(help=texts.get(name))]
            members.append((name, kind, dataclasses.field(default=value)))
        cls = dataclasses.make_dataclass(prefix, members, frozen=True)
        named = Annotated[cls, tyro.conf.arg(name=prefix)]  # type: ignore[valid-type]
        added.append((_attribute(prefix), named, dataclasses.field(default=cls())))
    if not added:
        return options
    return dataclasses.make_dataclass(
        options.__name__,
        added,
        bases=(options,),
        frozen=True,
        namespace={"__doc__": options.__doc__},
    )


def take_own_fields(
    experiment: Experiment, options: Any, fields: Mapping[str, Mapping[str, Any]]
) -> Experiment:
    """The experiment with the values that parsed options give for fields of own classes.

    Args:
      experiment: the experiment, with the values that the fields had before.
      options: what was parsed from the class that `with_own_fields` returned.
      fields: what `own_fields` returned.
    """
    given = {}
    for prefix, before in fields.items():
        parsed = getattr(options, _attribute(prefix))
        for name, value in before.items():
            if getattr(parsed, name) != value:
                given[f"{prefix}.{name}"] = getattr(parsed, name)
    return with_fields(experiment, given) if given else experiment


def _attribute(prefix: str) -> str:
    return f"own_{prefix.replace('.', '_')}"


def _type_of(value: Any) -> Any:
    """The type of an option whose default is this value."""
    if value is None:
        return float | str | None
    if isinstance(value, bool):
        return Annotated[bool, tyro.conf.FlagConversionOff]
    if isinstance(value, tuple):
        return tuple[type(value[0]) if value else float, ...]  # type: ignore[misc]
    return type(value)
