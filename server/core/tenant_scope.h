// Whose jobs a caller reaches. Plain values; the core looks at a job only through one of them, so
// that a job of others and one that does not exist are the same.
#ifndef UNIQUANF_SERVER_CORE_TENANT_SCOPE_H_
#define UNIQUANF_SERVER_CORE_TENANT_SCOPE_H_

#include <set>
#include <string>

namespace uniquanf::server {

// All tenants, or some of them.
struct TenantScope {
  bool all = true;
  std::set<std::string> tenants = {};  // where it is not all

  static TenantScope None() { return {false, {}}; }
  bool Has(const std::string& tenant) const { return all || tenants.count(tenant) > 0; }
  bool empty() const { return !all && tenants.empty(); }
  void Add(const TenantScope& other) {
    all = all || other.all;
    tenants.insert(other.tenants.begin(), other.tenants.end());
  }
  // What it has in common with one tenant.
  TenantScope Only(const std::string& tenant) const {
    return Has(tenant) ? TenantScope{false, {tenant}} : None();
  }
};

// The jobs that a call may know of, and those with which it may do what it is there for. By
// default everything: calls that no identity is asked of.
struct JobAccess {
  TenantScope visible = {};
  TenantScope allowed = {};

  // For a name that says the tenant; "" says none.
  JobAccess In(const std::string& tenant) const {
    return tenant.empty() ? *this : JobAccess{visible.Only(tenant), allowed.Only(tenant)};
  }
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_CORE_TENANT_SCOPE_H_
