// What goes on behind calls and that people may want to read: files taken anew, addresses that
// changed. A program gives it to its log, a command line prints the warnings.
#ifndef UNIQUANF_COMMON_RPC_NOTES_H_
#define UNIQUANF_COMMON_RPC_NOTES_H_

#include <functional>
#include <string>

namespace uniquanf {

enum class NoteLevel { kInfo, kWarning };
// Called from any thread, one call at a time for each object that has it; must not call back into
// that object. May be null: nobody listens.
using NoteSink = std::function<void(NoteLevel, const std::string&)>;

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_RPC_NOTES_H_
