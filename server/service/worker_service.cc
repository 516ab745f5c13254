#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/artifact/signature.h"
#include "common/base/status.h"
#include "common/rpc/time_proto.h"
#include "server/service/outcome_claims.h"
#include "server/service/services.h"

namespace uniquanf::server {
namespace {

// What the policy says of the worker counts, not what the worker says: R18.
absl::Status HoldTo(const WorkerRules& rules, const Principal& principal, SynchronizeEvent* event) {
  WorkerCapabilities& capabilities = event->capabilities;
  capabilities.tenants = ScopeOf(principal, Verb::kWork, Resource::kWorker);
  if (!rules.devices.empty() && rules.devices.count(capabilities.device) == 0) {
    return MakeError(
        absl::StatusCode::kPermissionDenied, "WORKER_NOT_ALLOWED",
        absl::StrCat("the server's policy has ", principal.name, " compute on ",
                     absl::StrJoin(rules.devices, " or "), ", not on ", capabilities.device));
  }
  if (rules.labels.has_value()) capabilities.labels = *rules.labels;
  if (rules.max_memory_bytes > 0 &&
      (capabilities.memory_bytes == 0 || capabilities.memory_bytes > rules.max_memory_bytes)) {
    capabilities.memory_bytes = rules.max_memory_bytes;
  }
  if (rules.max_slots > 0) {
    capabilities.num_slots = std::min(capabilities.num_slots, rules.max_slots);
    const auto num_running = static_cast<int32_t>(std::count_if(
        event->leases.begin(), event->leases.end(),
        [](const LeaseReport& report) { return report.kind == LeaseReport::Kind::kRunning; }));
    event->num_free_slots =
        std::min(event->num_free_slots, std::max(0, rules.max_slots - num_running));
  }
  return absl::OkStatus();
}

// "", or what is wrong with the signature of a result: of a worker whose keys are known each has
// one.
std::string FindForgery(const WorkerRules& rules, const std::string& identity,
                        const LeaseReport& report, const std::string& signature) {
  if (rules.signing_keys.empty()) return "";
  if (signature.empty()) {
    return "it is not signed, and the server's policy has the worker's keys (--signing-key)";
  }
  const std::string message =
      ResultMessage(identity, report.lease_id, report.outcome.result_sha256);
  const bool good =
      std::any_of(rules.signing_keys.begin(), rules.signing_keys.end(),
                  [&](const VerifyingKey& key) { return key.Verifies(message, signature); });
  return good ? "" : "its signature is by none of the worker's keys";
}

std::vector<DataGrant> GrantsFor(const ServiceContext& context, const AccessPolicy& policy,
                                 const std::string& tenant, const std::string& job) {
  const TenantRules& rules = policy.RulesOf(tenant);
  const DataRules data = {absl::StrCat(context.layout.root, "/tenants/", tenant),
                          context.reserved_uris};
  std::vector<DataGrant> grants = GrantsOf(data, rules.data, rules.credentials);
  // Where jobs from before the policy go by default; with one nobody can name it.
  grants.push_back({context.layout.ArtifactUri(job), {DataPurpose::kOutput}, ""});
  return grants;
}

void AddGrants(const std::vector<DataGrant>& grants, const std::vector<std::string>& withheld,
               v1::TaskAssignment* proto) {
  proto->set_data_is_confined(true);
  for (const std::string& place : withheld) proto->add_withheld_uri_prefixes(place);
  for (const DataGrant& grant : grants) {
    v1::DataGrant* g = proto->add_data();
    g->set_uri_prefix(grant.uri_prefix);
    g->set_credentials(grant.credentials);
    for (const DataPurpose purpose : grant.purposes) {
      switch (purpose) {
        case DataPurpose::kModel:
          g->add_purposes(v1::DataGrant::MODEL);
          break;
        case DataPurpose::kCalibration:
          g->add_purposes(v1::DataGrant::CALIBRATION);
          break;
        case DataPurpose::kEvaluation:
          g->add_purposes(v1::DataGrant::EVALUATION);
          break;
        case DataPurpose::kOutput:
          g->add_purposes(v1::DataGrant::OUTPUT);
          break;
      }
    }
  }
}

}  // namespace

grpc::ServerUnaryReactor* WorkerServiceImpl::Synchronize(grpc::CallbackServerContext* rpc,
                                                         const v1::SynchronizeRequest* request,
                                                         v1::SynchronizeResponse* response) {
  Admission admission = Admit(context_, rpc, MethodRow("Synchronize"), request->worker());
  return UnaryCall::Serve(std::move(admission), [&](UnaryCall* call, const Principal& principal) {
    absl::StatusOr<SynchronizeEvent> event = SynchronizeFromProto(*request);
    if (!event.ok()) {
      return call->Done(event.status());
    }
    if (context_.preflight != nullptr && request->capabilities().architectures_size() > 0) {
      context_.preflight->architectures().Note(event->worker, event->capabilities.architectures,
                                               context_.clock->Monotonic());
    }
    // A worker that went away must not be given tasks in its held call.
    call->set_on_cancel(
        [runtime = context_.runtime, session = event->session, sequence = event->sequence] {
          runtime->AbandonSynchronize(session, sequence);
        });
    if (context_.door.access == nullptr) {
      return Believe(call, *std::move(event), DurationFromProto(request->max_wait()), response);
    }
    // A worker's name is its identity's; what the request says tells those that share one apart.
    event->identity = principal.name;
    event->worker = WorkerOf(principal, event->worker);
    const std::shared_ptr<const AccessPolicy> policy = context_.door.access->policy();
    const WorkerRules& rules = policy->RulesOfWorker(principal.name);
    if (const absl::Status held = HoldTo(rules, principal, &*event); !held.ok()) {
      return call->Done(held);
    }
    for (size_t i = 0; i < event->leases.size(); ++i) {
      const v1::LeaseReport& report = request->leases(static_cast<int>(i));
      if (!report.has_succeeded()) continue;
      std::string& fault = event->leases[i].outcome.fault;
      fault = FindNonsense(report.succeeded());
      if (fault.empty()) {
        fault =
            FindForgery(rules, principal.name, event->leases[i], report.succeeded().signature());
      }
    }
    std::vector<OutcomeClaim> claims = ClaimsOf(*event, context_.runtime->published());
    std::erase_if(claims, [](const OutcomeClaim& claim) { return !claim.outcome.fault.empty(); });
    for (OutcomeClaim& claim : claims) {
      claim.data =
          std::make_shared<const DataAccess>(GrantsFor(context_, *policy, claim.tenant, claim.job),
                                             context_.reserved_uris, context_.credentials_dir);
      claim.signing_keys = rules.signing_keys;
    }
    if (claims.empty() || context_.outcome_proof == nullptr) {
      return Believe(call, *std::move(event), DurationFromProto(request->max_wait()), response);
    }
    context_.outcome_proof->Check(
        claims, [this, call, request, response, claims, event = *std::move(event)](
                    const absl::StatusOr<std::vector<std::string>>& faults) mutable {
          if (!faults.ok()) return call->Done(faults.status());
          for (size_t i = 0; i < claims.size(); ++i) {
            event.leases[claims[i].lease].outcome.fault = (*faults)[i];
          }
          Believe(call, std::move(event), DurationFromProto(request->max_wait()), response);
        });
  });
}

// Each lease that goes out, also one that goes out again since the worker had not heard of it.
void WorkerServiceImpl::RecordLeases(const SynchronizeReply& reply,
                                     const std::string& identity) const {
  if (context_.door.audit == nullptr) return;
  for (const Assignment& assignment : reply.assignments) {
    AuditRecord record;
    record.time = context_.clock->Now();
    record.principal = identity;
    record.method = "Lease";
    record.resource = TaskNameOf(JobName(assignment.job, assignment.tenant), assignment.task);
    record.tenant = assignment.tenant;
    record.allowed = true;
    record.code = "OK";
    context_.door.audit->Append(record);
  }
}

void WorkerServiceImpl::Believe(UnaryCall* call, SynchronizeEvent event, absl::Duration max_wait,
                                v1::SynchronizeResponse* response) {
  const std::string identity = event.identity.empty() ? WorkerName(event.worker) : event.identity;
  const NameForm form = context_.door.access == nullptr ? NameForm::kShort : NameForm::kWithTenant;
  context_.runtime->Synchronize(
      std::move(event), max_wait,
      [this, call, response, form, identity](const absl::StatusOr<SynchronizeReply>& reply) {
        if (reply.ok()) {
          ReplyToProto(*reply, context_.layout, form, response);
          if (context_.door.access != nullptr) {
            const std::shared_ptr<const AccessPolicy> policy = context_.door.access->policy();
            for (size_t i = 0; i < reply->assignments.size(); ++i) {
              v1::TaskAssignment* proto = response->mutable_assignments(static_cast<int>(i));
              const Assignment& assignment = reply->assignments[i];
              AddGrants(GrantsFor(context_, *policy, assignment.tenant, assignment.job),
                        context_.reserved_uris, proto);
              proto->set_worker(identity);
            }
          }
          RecordLeases(*reply, identity);
        }
        call->Done(reply.status());
      });
}

}  // namespace uniquanf::server
