"""Admission policies that check an author's rights to the objects named in a spec, built from the marks in the types.

Pure: builds the objects of `manifests/policies/rights.yaml`. There are two policies, because the API server bounds the
cost of one to 28 checks of rights, and of an expression to two (1.32: 10,000,000 and 1,000,000, at 350,000 a check).

A name in an open object (a pod template) is read as text: CEL of 1.32 can't flatten lists of lists, but can join
texts. Lines are `<field> <name>[ <address>]`. Names and addresses of existing objects contain neither blanks nor
line ends, and a value of another type than the field of core/v1 is skipped: no pod can be created from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from modelwright.api.cel import NAMED_OBJECT, NamedObject
from modelwright.api.crd.definition import KINDS
from modelwright.api.names import GROUP

Json = dict[str, Any]
Path = tuple[str, ...]

MAX_ACCOUNTS = 6
MAX_OTHER_NAMES = 7
"""Largest number of different names that are checked one by one, of ServiceAccounts and of each other kind."""
POLICY_NAMES = "modelwright-names"
POLICY_MAKES = "modelwright-makes"
_RETRAINING_PLURAL = "retrainingpolicies"
_MALFORMED_MESSAGE = ": apiVersion, kind and a ServiceAccount must be texts, and spec an object"
_FORBIDDEN_GROUPS = ("", GROUP, "rbac.authorization.k8s.io", "admissionregistration.k8s.io", "apiextensions.k8s.io")
MAX_PARTS = 1000
"""Largest number of containers, variables, volumes and their sources in all pod templates of an object together:
with more, one request takes the API server seconds."""
_CONTAINER_LISTS = "['containers', 'initContainers', 'ephemeralContainers', 'container']"
"""Lists of containers in a pod spec; the last one stands for the container of a runtime."""


@dataclass(frozen=True, slots=True)
class MarkedField:
    """A marked field: its kind's plural, its path from `spec` ("[]" after a list), and what it names."""

    plural: str
    path: Path
    target: NamedObject

    @property
    def field(self) -> str:
        """The path from spec in the usual notation."""
        return ".".join(("spec", *self.path)).replace(".[]", "[]")


@cache
def list_marked_fields() -> tuple[MarkedField, ...]:
    """List every marked field below spec of every kind, including those that name nothing."""
    fields = []
    for kind in KINDS:
        source = kind.model_fields["spec"].annotation.model_json_schema(by_alias=True, mode="validation")
        definitions = source.get("$defs", {})
        marks = _find_marks(source, definitions, ())
        fields += [MarkedField(kind.__crd__.plural, path, target) for path, target in marks]
    return tuple(fields)


def _find_marks(
    node: Mapping[str, Any], definitions: Mapping[str, Any], path: Path
) -> Iterator[tuple[Path, NamedObject]]:
    if NAMED_OBJECT in node:
        mark = dict(node[NAMED_OBJECT])
        yield path, NamedObject(**{**mark, "beside": tuple(mark["beside"])})
    for member in node.get("anyOf", ()):
        yield from _find_marks(member, definitions, path)
    if "$ref" in node:
        yield from _find_marks(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions, path)
    for name, child in node.get("properties", {}).items():
        yield from _find_marks(child, definitions, (*path, name))
    if "items" in node:
        yield from _find_marks(node["items"], definitions, (*path, "[]"))


def _drop_duplicates(fields: Iterator[MarkedField]) -> list[MarkedField]:
    """Keep each path once: a path that several kinds share means the same in all of them."""
    return list({(field.path, field.target): field for field in fields}.values())


def _fields_naming(*kinds: str) -> list[MarkedField]:
    return _drop_duplicates(field for field in list_marked_fields() if field.target.kind in kinds)


def build_policies() -> list[Json]:
    """Build both policies with their bindings, in the order of applying."""
    return [
        _build_policy(
            POLICY_NAMES,
            _fields_naming(
                "ServiceAccount", "Secret", "Claim", "PodTemplate", "PodSpec", "Container", "Volumes", "Manifest"
            ),
            _build_names_rules(),
        ),
        _build_binding(POLICY_NAMES),
        _build_policy(
            POLICY_MAKES, _fields_naming("PodTemplate", "PodSpec", "Container", "Manifest"), _build_makes_rules()
        ),
        _build_binding(POLICY_MAKES),
    ]


def _policy_metadata(name: str) -> Json:
    return {
        "name": name,
        "labels": {"app.kubernetes.io/name": "modelwright", "app.kubernetes.io/component": "policies"},
    }


def _build_policy(name: str, fields: list[MarkedField], rules: Json) -> Json:
    plurals = [kind.__crd__.plural for kind in KINDS]
    targets = {field.target for field in fields}
    checked = {field.plural for field in list_marked_fields() if field.target in targets}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": _policy_metadata(name),
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [GROUP],
                        "apiVersions": ["*"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": [plural for plural in plurals if plural in checked],
                        # The server's default, written out: otherwise every kubectl apply would report a change.
                        "scope": "*",
                    }
                ]
            },
            **rules,
        },
    }


def _build_binding(name: str) -> Json:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": _policy_metadata(name),
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }


# --- Expressions ---


def _items_expression(root: str, path: Path) -> tuple[str, str, str]:
    """Return an expression that lists the values at `path` below `root`, the name of its variable, and its field.

    The path has at most one list, of entries with a `name`. Everything above the last part is in the CRD's schema, so
    its type is known.
    """
    if "[]" not in path:
        return f"[?{root}{''.join(f'.?{part}' for part in path)}]", "x", _quote_text(".".join(("spec", *path)))
    place = path.index("[]")
    above, below = path[:place], path[place + 1 :]
    listed = f"{root}{''.join(f'.?{part}' for part in above)}.orValue([])"
    field = (
        f"{_quote_text('.'.join(('spec', *above)) + '[')} + i.name + "
        f"{_quote_text(']' + ''.join(f'.{part}' for part in below))}"
    )
    return listed, f"i{''.join(f'.?{part}' for part in below)}", field


def _quote_text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _pod_specs_expression(root: str) -> str:
    """Return an expression for all pod specs and their equivalents, as {field, spec}."""
    parts = []
    for mark in _fields_naming("PodTemplate", "PodSpec", "Container", "Volumes", "Manifest"):
        tail: Path = {"PodTemplate": ("spec",), "Manifest": ("spec",)}.get(mark.target.kind, ())
        listed, item, field = _items_expression(root, (*mark.path, *tail))
        kind = "list" if mark.target.kind == "Volumes" else "map"
        spec = {
            "Container": "{'container': dyn([x])}",
            "Volumes": "{'volumes': x}",
            # Of an object of another kind only the ServiceAccount is read: the right to create it bounds the rest.
            "Manifest": "x.filter(k, k == 'serviceAccountName').size() > 0 ? dyn({'serviceAccountName': "
            "x.serviceAccountName}) : dyn({})",
        }.get(mark.target.kind, "x")
        if mark.target.kind in ("Container", "Volumes"):
            field = _quote_text("spec")
        if item == "x":
            parts.append(
                f"{listed}.filter(x, type(x) == {kind}).map(x, {{'field': dyn({field}), 'spec': dyn({spec})}})"
            )
        else:
            there = f"[?{item}].exists(x, type(x) == {kind})"
            parts.append(f"{listed}.filter(i, {there}).map(i, {{'field': dyn({field}), 'spec': dyn({item}.value())}})")
    return "\n+ ".join(parts)


def _list_or_empty(of: str, key: str) -> str:
    """Return an expression for the list `of[key]`, empty when it is none."""
    return f"({_quote_text(key)} in {of} && type({of}.{key}) == list ? {of}.{key} : [])"


def _count_parts(pods: str) -> str:
    """Return an expression that counts containers, variables, volumes and their sources; of a long list its length."""

    def counted(listed: str, item: str, each: str) -> str:
        long, of = f"{listed}.size() > {MAX_PARTS}", f"{listed}.filter({item}, type({item}) == map)"
        return f"({long} ? {listed}.size() : {listed}.size() + {of}.map({item}, {each}).sum())"

    containers = counted(
        "(g in p.spec && type(p.spec[g]) == list ? p.spec[g] : [])",
        "c",
        f"{_list_or_empty('c', 'env')}.size() + {_list_or_empty('c', 'envFrom')}.size()",
    )
    sources = (
        "'projected' in v && type(v.projected) == map ? " + _list_or_empty("v.projected", "sources") + ".size() : 0"
    )
    volumes = counted(_list_or_empty("p.spec", "volumes"), "v", sources)
    pulls = f"{_list_or_empty('p.spec', 'imagePullSecrets')}.size()"
    return f"{pods}.map(p, {_CONTAINER_LISTS}.map(g, {containers}).sum()\n+ {volumes} + {pulls}).sum()"


def _has_named_member(of: str, key: str, name: str) -> str:
    """Return the condition that `of[key]` is an object whose `name` is a text."""
    inner = f"{of}.{key}"
    return (
        f"{_quote_text(key)} in {of} && type({inner}) == map && {_quote_text(name)} in {inner} && "
        f"type({inner}.{name}) == string"
    )


def _pod_account_lines(pods: str) -> str:
    return (
        f"{pods}.map(p, ['serviceAccountName', 'serviceAccount']"
        ".filter(k, k in p.spec && type(p.spec[k]) == string)"
        r".map(k, string(p.field) + '.' + k + ' ' + string(p.spec[k])).join('\n')).join('\n')"
    )


def _pod_claim_lines(pods: str) -> str:
    return (
        f"{pods}.map(p, {_list_or_empty('p.spec', 'volumes')}"
        f".filter(v, type(v) == map && {_has_named_member('v', 'persistentVolumeClaim', 'claimName')})"
        r".map(v, string(p.field) + '.volumes ' + string(v.persistentVolumeClaim.claimName)).join('\n')).join('\n')"
    )


def _pod_secret_lines(pods: str) -> str:
    env = (
        f"{_list_or_empty('c', 'env')}.filter(e, type(e) == map && 'valueFrom' in e && type(e.valueFrom) == map && "
        f"{_has_named_member('e.valueFrom', 'secretKeyRef', 'name')})"
        r".map(e, string(p.field) + '.' + g + '.env ' + string(e.valueFrom.secretKeyRef.name)).join('\n')"
    )
    env_from = (
        f"{_list_or_empty('c', 'envFrom')}.filter(e, type(e) == map && {_has_named_member('e', 'secretRef', 'name')})"
        r".map(e, string(p.field) + '.' + g + '.envFrom ' + string(e.secretRef.name)).join('\n')"
    )
    containers = (
        f"{_CONTAINER_LISTS}.filter(g, g in p.spec && type(p.spec[g]) == list).map(g, p.spec[g]"
        f".filter(c, type(c) == map && ('env' in c || 'envFrom' in c)).map(c, {env}\n+ '\\n' + {env_from}).join('\\n'))"
        ".join('\\n')"
    )
    projected = (
        f"('sources' in v[k] && k == 'projected' && type(v[k].sources) == list ? v[k].sources : [])"
        f".filter(s, type(s) == map && {_has_named_member('s', 'secret', 'name')})"
        r".map(s, string(p.field) + '.volumes ' + string(s.secret.name)).join('\n')"
    )
    # Sources of all kinds name theirs in one of these ways: secret, azureFile; flexVolume, iscsi, rbd, ...; csi.
    volumes = (
        f"{_list_or_empty('p.spec', 'volumes')}.filter(v, type(v) == map).map(v, v.filter(k, type(v[k]) == "
        "map).map(k,\n"
        "['secretName'].filter(n, n in v[k] && type(v[k][n]) == string)"
        r".map(n, string(p.field) + '.volumes ' + string(v[k][n])).join('\n') + '\n'"
        "\n"
        "+ ['secretRef', 'nodePublishSecretRef'].filter(n, n in v[k] && type(v[k][n]) == map && 'name' in v[k][n] "
        "&& type(v[k][n].name) == string)"
        r".map(n, string(p.field) + '.volumes ' + string(v[k][n].name)).join('\n') + '\n'"
        "\n"
        f"+ {projected}).join('\\n')).join('\\n')"
    )
    pulls = (
        f"{_list_or_empty('p.spec', 'imagePullSecrets')}.filter(s, type(s) == map && 'name' in s && "
        "type(s.name) == string)"
        r".map(s, string(p.field) + '.imagePullSecrets ' + string(s.name)).join('\n')"
    )
    return f"{pods}.map(p, {containers}\n+ '\\n' + {volumes}\n+ '\\n' + {pulls}).join('\\n')"


def _schema_field_lines(root: str, kind: str) -> str:
    """Return an expression for the lines of schema fields that name an object of this kind; empty where absent."""
    parts = []
    for mark in _fields_naming(kind):
        above, name = mark.path[:-1], mark.path[-1]
        listed, item, field = _items_expression(root, above)
        parent = "x" if item == "x" else item
        where = f"{field} + {_quote_text('.' + name + ' ')}"
        # The Secret is sent to the address, so a new address is checked like a new Secret.
        beside = "".join(f" + ' ' + {_companion_value(root, mark.path, other)}" for other in mark.target.beside)
        if item != "x":
            assert len(above) - above.index("[]") == 2, mark  # noqa: S101
            listed, parent = f"{listed}.filter(i, has({_drop_optionals(item)}))", _drop_optionals(item)
            beside = beside.replace("x.?", f"{parent}.?")
        variable = "x" if item == "x" else "i"
        value = f"{parent}.{name}"
        if kind == "Secret":
            has, value = f"has({value})", f"{value}.name"
        elif mark.target.pvc:
            has, value = f"{value}.startsWith('pvc://')", f"{value}.substring(6).split('/')[0]"
        else:
            has = f"has({value})"
        parts.append(f"{listed}.filter({variable}, {has}).map({variable}, {where} + string({value}){beside})")
    return "\n+ ".join(parts)


def _drop_optionals(item: str) -> str:
    return item.replace(".?", ".")


def _companion_value(root: str, path: Path, other: str) -> str:
    if other.startswith("../"):
        place = (*path[:-2], *other.removeprefix("../").split("/"))
        return f"string({root}{''.join(f'.?{part}' for part in place)}.orValue(''))"
    return f"string(x.?{other}.orValue(''))"


def _name_lines(kind: str, pods: str, root: str) -> str:
    text = {"ServiceAccount": _pod_account_lines, "Secret": _pod_secret_lines, "Claim": _pod_claim_lines}[kind](pods)
    return f"{_schema_field_lines(root, kind)}\n+ ({text}).split('\\n').filter(l, l.contains(' '))"


# --- Rights to named objects ---

_IS_OPERATOR = (
    f"authorizer.group('{GROUP}').resource('modelrollouts').subresource('status')"
    ".namespace(request.?namespace.orValue('')).check('patch').allowed()\n"
    "&& authorizer.group('apps').resource('deployments').namespace(request.?namespace.orValue(''))"
    ".check('create').allowed()"
)
"""Condition for the operator: a user who may write statuses and create Deployments can mount all of this anyway.
Costs two checks."""


@dataclass(frozen=True, slots=True)
class _RightCheck:
    kind: str
    variable: str
    resource: str
    verbs: tuple[str, ...]
    """The first is required; another one also suffices on all objects."""
    limit: int
    purpose: str


_RIGHT_CHECKS = (
    _RightCheck(
        "ServiceAccount",
        "account",
        "serviceaccounts",
        ("use", "impersonate"),
        MAX_ACCOUNTS,
        "to have pods run as the ServiceAccount",
    ),
    _RightCheck("Secret", "secret", "secrets", ("get",), MAX_OTHER_NAMES, "to hand the Secret"),
    _RightCheck(
        "Claim", "claim", "persistentvolumeclaims", ("get",), MAX_OTHER_NAMES, "to mount the PersistentVolumeClaim"
    ),
)


def _cel_variable(name: str, expression: str) -> Json:
    return {"name": name, "expression": expression}


def _shared_variables() -> list[Json]:
    """Return the variables that both policies start with."""
    idle = (
        f"request.resource.resource == '{_RETRAINING_PLURAL}' && request.operation == 'UPDATE'\n"
        "&& dyn(object).spec.run == dyn(oldObject).spec.run\n"
        "&& dyn(object).spec.modelRef == dyn(oldObject).spec.modelRef\n"
        "&& dyn(object).spec.?triggers == dyn(oldObject).spec.?triggers"
    )
    return [
        _cel_variable("place", "request.?namespace.orValue('')"),
        # Guards, suspend and history of a RetrainingPolicy create nothing. Any other edit is checked completely.
        _cel_variable("spec", f"({idle})\n? dyn({{}}) : dyn(object).spec"),
        _cel_variable(
            "old",
            f"request.operation == 'CREATE' || request.resource.resource == '{_RETRAINING_PLURAL}'\n"
            "? dyn({}) : dyn(oldObject).spec",
        ),
        _cel_variable("templates", _pod_specs_expression("variables.spec")),
        _cel_variable("templatesBefore", _pod_specs_expression("variables.old")),
        _cel_variable("parts", _count_parts("variables.templates")),
        _cel_variable("pods", f"variables.parts > {MAX_PARTS} ? [] : variables.templates"),
        _cel_variable(
            "podsBefore", f"{_count_parts('variables.templatesBefore')} > {MAX_PARTS} ? [] : variables.templatesBefore"
        ),
    ]


def _parts_limit_rule() -> Json:
    return {
        "expression": f"variables.parts <= {MAX_PARTS}",
        "reason": "Invalid",
        "messageExpression": "'spec: its pod templates have ' + string(variables.parts) + ' containers, variables and "
        f"volumes or more in all, where at most {MAX_PARTS} can be checked: put variables into a ConfigMap'",
    }


def _build_names_rules() -> Json:
    variables, validations = _shared_variables(), [_parts_limit_rule()]
    for check in _RIGHT_CHECKS:
        name, many = check.variable, f"{check.variable}s"
        others = " && l.split(' ')[1] != 'default'" if check.kind == "ServiceAccount" else ""
        variables += [
            _cel_variable(f"{many}Before", _name_lines(check.kind, "variables.podsBefore", "variables.old")),
            _cel_variable(f"{many}Now", _name_lines(check.kind, "variables.pods", "variables.spec")),
            _cel_variable(f"{many}0", f"variables.{many}Now.filter(l, !(l in variables.{many}Before){others})"),
        ]
        every = "\n|| ".join(
            f"authorizer.group('').resource('{check.resource}').namespace(variables.place).check('{verb}').allowed()"
            for verb in check.verbs
        )
        variables.append(_cel_variable(f"every{name.capitalize()}", every))
        for number in range(1, check.limit + 1):
            rest = f"variables.{many}{number - 1}"
            variables += [
                _cel_variable(f"{name}{number}", f"{rest}.size() > 0 ? {rest}[0].split(' ')[1] : ''"),
                _cel_variable(f"{many}{number}", f"{rest}.filter(l, l.split(' ')[1] != variables.{name}{number})"),
            ]
        free = f"variables.every{name.capitalize()}"
        last = f"variables.{many}{check.limit}"
        validations.append(
            {
                "expression": f"{last}.size() == 0 || {free}",
                "reason": "Invalid",
                "messageExpression": f"{last}[0].split(' ')[0] + ': without the right to "
                f"{check.verbs[0]} all {check.resource} of the namespace, an object may name at most {check.limit} "
                "different ones'",
            }
        )
        for number in range(1, check.limit + 1):
            requested = f"variables.{name}{number}"
            validations.append(
                {
                    "expression": f"{requested} == '' || {free}\n|| authorizer.group('').resource('{check.resource}')"
                    f".namespace(variables.place).name({requested}).check('{check.verbs[0]}').allowed()",
                    "reason": "Forbidden",
                    "messageExpression": f"variables.{many}{number - 1}.filter(l, l.split(' ')[1] == {requested})"
                    f".map(l, l.split(' ')[0]).join(', ')\n+ ': {check.purpose} \"' + {requested} + "
                    f"'\"{' to pods' if check.kind == 'Secret' else ''}, you (\"' + request.userInfo.username\n"
                    f'+ \'") need the verb "{check.verbs[0]}" on it\'',
                }
            )
    return {
        "matchConditions": [
            _cel_variable(
                "changes-the-spec", "request.operation == 'CREATE' || dyn(object).spec != dyn(oldObject).spec"
            ),
            # Its versions name objects whose rights were checked in a Model or a policy.
            _cel_variable("is-not-the-operator", f"!({_IS_OPERATOR})"),
        ],
        "variables": variables,
        "validations": validations,
    }


# --- Rights to created objects ---


def _code_expression(pods: str) -> str:
    """Return an expression for the code that runs in each pod, as {field, code}; pods without any are left out."""
    key = "k in c && (k in ['image', 'command', 'args', 'lifecycle']\n|| (type(c[k]) == map && 'exec' in c[k]))"
    keys = "['image', 'command', 'args', 'lifecycle', 'livenessProbe', 'readinessProbe', 'startupProbe']"
    return (
        f"{pods}.map(p, {{'field': dyn(p.field), 'code': dyn({_CONTAINER_LISTS}.filter(g, g in p.spec "
        f"&& type(p.spec[g]) == list\n&& p.spec[g].exists(c, type(c) == map && {keys}.exists(k, {key})))\n"
        f".map(g, dyn({{'at': dyn(g), 'are': dyn(p.spec[g].filter(c, type(c) == map && {keys}.exists(k, {key}))\n"
        f".map(c, dyn({{'name': dyn('name' in c ? c.name : ''), 'says': dyn({keys}.filter(k, {key})\n"
        f".map(k, dyn([dyn(k), dyn(c[k])])))}})))}})))}}).filter(p, p.code.size() > 0)"
    )


def _may_create(group: str, resource: str) -> str:
    return f"authorizer.group({group}).resource({resource}).namespace(variables.place).check('create').allowed()"


def _denial_message(fields: str, for_what: str, on: str) -> str:
    return f"{fields} + ': {for_what}, you (\"' + request.userInfo.username\n+ '\") need the verb \"create\" on {on}'"


def _build_makes_rules() -> Json:
    stages = [mark for mark in _fields_naming("PodTemplate") if mark.plural == _RETRAINING_PLURAL]
    manifests = _fields_naming("Manifest")
    deployed = list(_fields_naming("PodSpec", "Container"))
    fields = ", ".join(
        sorted(
            {
                _quote_text(f"spec.{'.'.join(mark.path)}" if mark.target.kind == "PodSpec" else "spec")
                for mark in deployed
            }
        )
    )
    work = "\n+ ".join(
        f"[?variables.spec{''.join(f'.?{part}' for part in mark.path[:-1])}]"
        f".map(x, {_quote_text(mark.field.rpartition('.')[0])})"
        for mark in stages
    )
    data = "variables.spec.?triggers.orValue([]).filter(i, has(i.data)).map(i, 'spec.triggers[' + i.name + '].data')"
    malformed = "\n+ ".join(
        [
            f"[?variables.spec{''.join(f'.?{part}' for part in mark.path)}.?spec]"
            ".filter(x, !(type(x) == map && (!('serviceAccountName' in x) || type(x.serviceAccountName) == string)\n"
            "&& (!('serviceAccount' in x) || type(x.serviceAccount) == string)))\n"
            f".map(x, {_quote_text(mark.field + '.spec: must be the spec of a pod, and its ServiceAccount a text')})"
            for mark in stages
        ]
        + [
            f"[?variables.spec{''.join(f'.?{part}' for part in mark.path)}]"
            ".filter(x, !(type(x.?apiVersion.orValue('')) == string && type(x.?kind.orValue('')) == string\n"
            "&& type(x.?spec.orValue({})) == map && (!('spec' in x) || !('serviceAccountName' in x.spec)\n"
            "|| type(x.spec.serviceAccountName) == string)))\n"
            f".map(x, {_quote_text(mark.field + _MALFORMED_MESSAGE)})"
            for mark in manifests
        ]
    )
    made = "\n+ ".join(
        f"[?variables.spec{''.join(f'.?{part}' for part in mark.path)}]\n"
        f".map(x, {{'field': {_quote_text(mark.field)}, 'apiVersion': string(x.?apiVersion.orValue('')), "
        "'kind': string(x.?kind.orValue(''))})"
        for mark in manifests
    )
    retraining = "\n&& ".join((f"request.resource.resource == '{_RETRAINING_PLURAL}'", "has(variables.spec.run)"))
    variables = [
        *_shared_variables(),
        _cel_variable("codeBefore", _code_expression("variables.podsBefore")),
        _cel_variable(
            "code",
            _code_expression("variables.pods") + "\n.filter(p, !(p in variables.codeBefore)).map(p, string(p.field))",
        ),
        _cel_variable("deployed", f"variables.code.filter(f, f in [{fields}])"),
        _cel_variable("works", work),
        _cel_variable("data", data),
        _cel_variable(
            "jobs",
            f"variables.works + variables.data + variables.code.filter(f, !(f in [{fields}]) "
            "&& !f.startsWith('spec.run.'))",
        ),
        _cel_variable("malformed", malformed),
        _cel_variable("manifests", made),
        _cel_variable(
            "kinds",
            "variables.manifests.map(made, {'field': made.field, 'apiVersion': made.apiVersion, 'kind': made.kind,\n"
            "'group': made.apiVersion.contains('/') ? made.apiVersion.split('/')[0] : '',\n"
            "'resource': made.kind.lowerAscii() + 's'})",
        ),
        _cel_variable(
            "refused", f"variables.kinds.filter(made, made.group in [{', '.join(map(_quote_text, _FORBIDDEN_GROUPS))}])"
        ),
    ]
    validations: list[Json] = [
        _parts_limit_rule(),
        {
            "expression": "variables.malformed.size() == 0",
            "reason": "Invalid",
            "messageExpression": "variables.malformed.join('; ')",
        },
        {
            "expression": "variables.manifests.all(made, made.apiVersion != '' && made.kind != '')",
            "reason": "Invalid",
            "messageExpression": "variables.manifests.filter(made, made.apiVersion == '' || made.kind == '')\n"
            ".map(made, made.field).join(', ') + ': apiVersion and kind are needed'",
        },
        {
            "expression": "variables.refused.size() == 0",
            "reason": "Forbidden",
            "messageExpression": "variables.refused.map(made, made.field + ': ' + made.kind + ' of ' + "
            "made.apiVersion).join(', ')\n+ ' is never created: neither Secrets and other core kinds, nor "
            "rights, admission, definitions of kinds, nor the kinds of modelwright.dev'",
        },
        {
            "expression": f"!({retraining})\n|| {_may_create(_quote_text(GROUP), _quote_text('modelversions'))}",
            "reason": "Forbidden",
            "messageExpression": _denial_message(
                "'spec.modelRef: a run registers a ModelVersion of the Model \"' + "
                "string(dyn(object).spec.modelRef.name) + '\"'",
                "",
                "modelversions.modelwright.dev",
            ).replace("': , you", "': you"),
        },
        {
            "expression": f"variables.deployed.size() == 0 || "
            f"{_may_create(_quote_text('apps'), _quote_text('deployments'))}",
            "reason": "Forbidden",
            "messageExpression": _denial_message(
                "variables.deployed.join(', ')",
                "to choose the image or command of Deployments",
                "deployments.apps",
            ),
        },
        {
            "expression": f"variables.jobs.size() == 0 || {_may_create(_quote_text('batch'), _quote_text('jobs'))}",
            "reason": "Forbidden",
            "messageExpression": _denial_message("variables.jobs.join(', ')", "to create Jobs", "jobs.batch"),
        },
        {
            "expression": f"variables.data.size() == 0 || {_may_create(_quote_text('batch'), _quote_text('cronjobs'))}",
            "reason": "Forbidden",
            "messageExpression": _denial_message(
                "variables.data.join(', ')", "a CronJob polls data", "cronjobs.batch"
            ).replace("data, you", "data: you"),
        },
    ]
    for number in range(len(manifests)):
        kind = f"variables.kinds[{number}]"
        validations.append(
            {
                "expression": f"variables.kinds.size() < {number + 1}\n"
                f"|| {_may_create(f'{kind}.group', f'{kind}.resource')}",
                "reason": "Forbidden",
                "messageExpression": f"{kind}.field + ': to create a ' + {kind}.kind + ', you (\"' + "
                f"request.userInfo.username\n+ '\") need the verb \"create\" on ' + {kind}.resource + '.' + "
                f"{kind}.group",
            }
        )
    return {
        "matchConditions": [
            _cel_variable(
                "changes-the-spec", "request.operation == 'CREATE' || dyn(object).spec != dyn(oldObject).spec"
            )
        ],
        "variables": variables,
        "validations": validations,
    }
