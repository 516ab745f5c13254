#include "server/service/server_capabilities.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <type_traits>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/spec/spec_fields.h"
#include "server/core/apply.h"

namespace uniquanf::server {
namespace {

// The proto's name of an enum's value.
std::string InCapitals(absl::string_view name) { return absl::AsciiStrToUpper(name); }

class SettingsWriter {
 public:
  explicit SettingsWriter(v1::ServerCapabilities* proto) : proto_(proto) {}

  void operator()(const TextField& field) {
    Add(field.name, v1::SpecSetting::TEXT, field.help)
        ->set_default_value(nlohmann::json(defaults_.*field.member).dump());
  }
  template <typename T>
  void operator()(const NumberField<T>& field) {
    const bool whole = !std::is_same_v<T, double>;
    const std::string zero = field.zero;
    v1::SpecSetting* const setting =
        Add(field.name, whole ? v1::SpecSetting::INTEGER : v1::SpecSetting::NUMBER,
            zero.empty() ? field.help : absl::StrCat(field.help, "; 0: ", zero));
    setting->set_minimum(static_cast<double>(field.min));
    setting->set_maximum(static_cast<double>(field.max));
    setting->set_default_value(nlohmann::json(defaults_.*field.member).dump());
  }
  template <typename Row, typename E>
  void operator()(const EnumField<Row, E>& field) {
    v1::SpecSetting* const setting = Add(field.name, v1::SpecSetting::CHOICE, field.help);
    for (const Row& row : field.rows) {
      v1::SpecChoice* const choice = setting->add_choices();
      choice->set_name(InCapitals(row.name));
      choice->set_help(row.help == nullptr ? "" : row.help);
    }
    setting->set_default_value(
        nlohmann::json(InCapitals(EnumName(field.rows, defaults_.*field.member))).dump());
  }
  // Lists have a message of their own (job.proto).
  void operator()(const OverridesField&) {}
  void operator()(const SharesField&) {}

 private:
  v1::SpecSetting* Add(const char* name, v1::SpecSetting::Kind kind, const std::string& help) {
    v1::SpecSetting* const setting = proto_->add_settings();
    setting->set_name(name);
    setting->set_kind(kind);
    setting->set_help(help);
    return setting;
  }

  const QuantizationSpec defaults_;
  v1::ServerCapabilities* const proto_;
};

}  // namespace

void SettingsToProto(v1::ServerCapabilities* proto) { VisitSpecFields(SettingsWriter(proto)); }

void FleetToProto(const State& state, absl::Duration now, v1::ServerCapabilities* proto) {
  std::map<std::string, v1::DeviceCapacity> devices;
  std::set<std::string> architectures;
  for (const auto& [id, session] : state.sessions) {
    if (!session.has_called || !IsPresent(state.policy, session, now)) continue;
    const WorkerCapabilities& capabilities = session.capabilities;
    v1::DeviceCapacity& device = devices[capabilities.device];
    device.set_device(capabilities.device);
    device.set_num_workers(device.num_workers() + 1);
    device.set_num_slots(device.num_slots() + capabilities.num_slots);
    device.set_max_memory_bytes(std::max(device.max_memory_bytes(), capabilities.memory_bytes));
    architectures.insert(capabilities.architectures.begin(), capabilities.architectures.end());
  }
  for (auto& [kind, device] : devices) *proto->add_devices() = std::move(device);
  for (const std::string& name : architectures) proto->add_architectures(name);
}

}  // namespace uniquanf::server
