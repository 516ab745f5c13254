#include "common/rpc/tls_files.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/read_file.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr char kReason[] = "INVALID_TLS_OPTIONS";
constexpr absl::Duration kExpiryWarning = absl::Hours(14 * 24);
constexpr absl::Duration kExpiryWarningPeriod = absl::Hours(24);

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using Bio = std::unique_ptr<BIO, Deleter<BIO_free>>;
using Certificate = std::unique_ptr<X509, Deleter<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;

absl::Status Wrong(absl::string_view what, const std::string& path, absl::string_view why) {
  ERR_clear_error();
  return InvalidInput(kReason, absl::StrCat("the ", what, " file \"", path, "\" ", why));
}

absl::StatusOr<std::string> ReadPem(absl::string_view what, const std::string& path) {
  absl::StatusOr<std::string> text = ReadSmallFile(path);
  if (!text.ok()) {
    return InvalidInput(kReason, absl::StrCat("cannot read the ", what, " file \"", path,
                                              "\": ", text.status().message()));
  }
  if (text->find("-----BEGIN ") == std::string::npos) {
    return Wrong(what, path, "is not PEM: it has no \"-----BEGIN\" line");
  }
  return text;
}

Bio BioOf(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// Checks every certificate of the file and returns the first one.
absl::StatusOr<Certificate> ReadCertificates(absl::string_view what, const std::string& path,
                                             const std::string& text) {
  ERR_clear_error();
  const Bio bio = BioOf(text);
  Certificate first;
  while (true) {
    Certificate next(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (next == nullptr) break;
    if (first == nullptr) first = std::move(next);
  }
  if (first == nullptr || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
    return Wrong(what, path,
                 first == nullptr ? "holds no certificate"
                                  : "holds a certificate that is damaged or cut off");
  }
  ERR_clear_error();
  return first;
}

std::string SerialOf(const X509* certificate) {
  const std::unique_ptr<BIGNUM, Deleter<BN_free>> number(
      ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), nullptr));
  char* const digits = number == nullptr ? nullptr : BN_bn2hex(number.get());
  std::string text = digits == nullptr ? "" : digits;
  OPENSSL_free(digits);
  return text;
}

absl::Time NotAfter(const X509* certificate) {
  std::tm time = {};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &time) != 1) return absl::InfiniteFuture();
  return absl::FromTM(time, absl::UTCTimeZone());
}

// Nobody is asked for a passphrase.
int NoPassphrase(char*, int, int, void*) { return 0; }

bool SameFiles(const TlsContents& a, const TlsContents& b) {
  return a.ca == b.ca && a.certificate == b.certificate && a.key == b.key;
}

}  // namespace

absl::StatusOr<TlsContents> ReadTlsFiles(const TlsFileNames& names) {
  if (names.certificate.empty() != names.key.empty()) {
    return InvalidInput(
        kReason, absl::StrCat("a TLS certificate and its key are given together; the ",
                              names.key.empty() ? "key" : "certificate", " file is missing"));
  }
  TlsContents contents;
  if (!names.ca.empty()) {
    UQ_ASSIGN_OR_RETURN(contents.ca, ReadPem("certificate authority", names.ca));
    UQ_RETURN_IF_ERROR(ReadCertificates("certificate authority", names.ca, contents.ca).status());
  }
  if (names.certificate.empty()) return contents;
  UQ_ASSIGN_OR_RETURN(contents.certificate, ReadPem("certificate", names.certificate));
  UQ_ASSIGN_OR_RETURN(contents.key, ReadPem("key", names.key));
  UQ_ASSIGN_OR_RETURN(const Certificate certificate,
                      ReadCertificates("certificate", names.certificate, contents.certificate));
  const Key key(PEM_read_bio_PrivateKey(BioOf(contents.key).get(), nullptr, NoPassphrase, nullptr));
  if (key == nullptr) {
    return Wrong("key", names.key, "holds no private key that can be read without a passphrase");
  }
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    return Wrong(
        "key", names.key,
        absl::StrCat("does not belong to the certificate file \"", names.certificate, "\""));
  }
  contents.serial = SerialOf(certificate.get());
  contents.not_after = NotAfter(certificate.get());
  return contents;
}

absl::StatusOr<std::unique_ptr<TlsWatch>> TlsWatch::Start(const TlsFileNames& names,
                                                          TlsWatchOptions options) {
  UQ_ASSIGN_OR_RETURN(TlsContents contents, ReadTlsFiles(names));
  return std::unique_ptr<TlsWatch>(new TlsWatch(names, std::move(options), std::move(contents)));
}

TlsWatch::TlsWatch(const TlsFileNames& names, TlsWatchOptions options, TlsContents contents)
    : names_(names),
      options_(std::move(options)),
      contents_(std::make_shared<const TlsContents>(std::move(contents))),
      thread_([this] { Run(); }) {}

TlsWatch::~TlsWatch() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

std::shared_ptr<const TlsContents> TlsWatch::contents() const {
  absl::MutexLock lock(&mutex_);
  return contents_;
}

void TlsWatch::ReloadNow() {
  absl::MutexLock lock(&mutex_);
  look_now_ = true;
}

void TlsWatch::Note(NoteLevel level, const std::string& text) const {
  if (options_.note != nullptr) options_.note(level, text);
}

void TlsWatch::Run() {
  WarnOfExpiry();
  absl::Duration pause = options_.period;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      const auto woken = [this]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_ || look_now_; };
      mutex_.AwaitWithTimeout(absl::Condition(&woken), pause);
      if (stop_) return;
      look_now_ = false;
    }
    pause = Look();
    WarnOfExpiry();
  }
}

absl::Duration TlsWatch::Look() {
  absl::StatusOr<TlsContents> read = ReadTlsFiles(names_);
  const std::shared_ptr<const TlsContents> old = contents();
  if (read.ok() && SameFiles(*read, *old)) {
    last_failure_ = absl::OkStatus();
    failure_told_ = false;
    return options_.period;
  }
  if (read.ok() && read->not_after <= absl::Now()) {
    read = Wrong("certificate", names_.certificate, "has expired");
  }
  if (!read.ok()) {
    // Said when it is seen twice, and once.
    if (read.status() == last_failure_ && !failure_told_) {
      failure_told_ = true;
      Note(NoteLevel::kWarning,
           absl::StrCat(read.status().message(), "; what was read before stays in use"));
    }
    if (read.status() != last_failure_) failure_told_ = false;
    last_failure_ = read.status();
    return failure_told_ ? options_.period : std::min(options_.second_look, options_.period);
  }
  last_failure_ = absl::OkStatus();
  failure_told_ = false;
  expiry_told_at_ = absl::InfinitePast();
  const auto fresh = std::make_shared<const TlsContents>(*std::move(read));
  {
    absl::MutexLock lock(&mutex_);
    contents_ = fresh;
  }
  if (options_.on_new != nullptr) options_.on_new(*fresh);
  Note(NoteLevel::kInfo,
       absl::StrCat("TLS files have changed and are in use",
                    fresh->serial.empty()
                        ? ""
                        : absl::StrCat("; the certificate's serial is ", fresh->serial)));
  return options_.period;
}

void TlsWatch::WarnOfExpiry() {
  const absl::Time now = absl::Now(), not_after = contents()->not_after;
  if (not_after - now > kExpiryWarning || now - expiry_told_at_ < kExpiryWarningPeriod) return;
  expiry_told_at_ = now;
  Note(NoteLevel::kWarning,
       absl::StrCat("the certificate of \"", names_.certificate, "\" ",
                    not_after <= now ? "has expired" : "expires", " at ",
                    absl::FormatTime(absl::RFC3339_sec, not_after, absl::UTCTimeZone())));
}

}  // namespace uniquanf
