"""Name the row security policy that refused a row, as the server names only restrictive ones."""

from __future__ import annotations

import attrs

from portl import DataError
from portl_postgres.session.session import Session

POLICY_VIOLATION = "42501"

_POLICIES = """
SELECT p.polname::text, p.polpermissive
  FROM pg_catalog.pg_policy AS p
 WHERE p.polrelid = pg_catalog.to_regclass($1) AND p.polcmd IN ('*', 'a', 'w')
   AND EXISTS (SELECT FROM unnest(p.polroles) AS r(role)
                WHERE CASE WHEN r.role = 0 THEN true ELSE pg_catalog.pg_has_role(r.role, 'USAGE') END)
 ORDER BY 1
"""


@attrs.frozen
class Policies:
    """The policies of one table that apply to rows inserted or updated by the role."""

    #: A row must satisfy one of these,
    permissive: tuple[str, ...]
    #: and all of these.
    restrictive: tuple[str, ...]

    @classmethod
    def of(cls, session: Session, table: str) -> Policies:
        """Read the policies of a table, given its quoted name."""
        rows = session.query(_POLICIES, table, what="looking at the policies of row security")
        return cls(
            permissive=tuple(name for name, permissive in rows if permissive),
            restrictive=tuple(name for name, permissive in rows if not permissive),
        )

    def name(self, error: DataError) -> None:
        """Add to an error which policy refused the row, whatever language the server speaks."""
        named = [name for name in self.restrictive if f'"{name}"' in error.message]
        if not named:
            named = list(self.permissive)
            allowed = f"no policy allows the row: {', '.join(named)}" if named else "no policy allows any row"
            error.message = f"{error.message}; {allowed}"
        error.constraint = ", ".join(named) or None
        error.hint = "change the row or the policy, or write as a role that row security does not concern"
