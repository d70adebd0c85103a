"""The columns of PAN-OS' logs, type by type, by the names of its variables.

`_` is a column that the documentation calls FUTURE_USE. Source: Palo Alto Networks, PAN-OS Administrator's Guide,
"Syslog Field Descriptions"; each list holds the columns of the latest version, and older ones are its beginning.
"""

from __future__ import annotations

from typing import Final

FILLER: Final = "future_use_"
"""Begins the name of a column that means nothing."""

_GROUPS: Final = "dg_hier_level_1 dg_hier_level_2 dg_hier_level_3 dg_hier_level_4 vsys_name device_name"
_HEAD: Final = "_ receive_time serial type subtype _ time_generated"
_SESSION: Final = (
    f"{_HEAD} src dst natsrc natdst rule srcuser dstuser app vsys from to inbound_if outbound_if logset _ sessionid "
    "repeatcnt sport dport natsport natdport flags proto action"
)
_DEVICES: Final = (
    "src_category src_profile src_model src_vendor src_osfamily src_osversion src_host src_mac "
    "dst_category dst_profile dst_model dst_vendor dst_osfamily dst_osversion dst_host dst_mac"
)
_APPLICATION: Final = (
    "subcategory_of_app category_of_app technology_of_app risk_of_app characteristic_of_app container_of_app "
    "is_saas_of_app sanctioned_state_of_app"
)

_LISTS: Final = {
    "TRAFFIC": (
        f"{_SESSION} bytes bytes_sent bytes_received packets start elapsed category _ seqno actionflags "
        f"srcloc dstloc _ "
        f"pkts_sent pkts_received session_end_reason {_GROUPS} action_source src_uuid dst_uuid tunnelid monitortag "
        "parent_session_id parent_start_time tunnel assoc_id chunks chunks_sent chunks_received rule_uuid "
        "http2_connection link_change_count policy_id link_switches sdwan_cluster sdwan_device_type "
        f"sdwan_cluster_type sdwan_site dynusergroup_name xff_ip {_DEVICES} container_id pod_namespace pod_name "
        "src_edl dst_edl hostid serialnumber src_dag dst_dag session_owner high_res_timestamp nssai_sst nssai_sd "
        f"{_APPLICATION} offloaded"
    ),
    "THREAT": (
        f"{_SESSION} misc threatid category severity direction seqno actionflags srcloc dstloc _ contenttype pcap_id "
        "filedigest cloud url_idx user_agent filetype xff referer sender subject recipient reportid "
        f"{_GROUPS} _ src_uuid dst_uuid http_method tunnel_id monitortag parent_session_id parent_start_time tunnel "
        "thr_category contentver _ assoc_id ppid http_headers url_category_list rule_uuid http2_connection "
        f"dynusergroup_name xff_ip {_DEVICES} container_id pod_namespace pod_name src_edl dst_edl hostid serialnumber "
        f"domain_edl src_dag dst_dag partial_hash high_res_timestamp reason justification nssai_sst {_APPLICATION}"
    ),
    "SYSTEM": f"{_HEAD} vsys eventid object _ _ module severity opaque seqno actionflags {_GROUPS} _ _ "
    "high_res_timestamp",
    "CONFIG": (
        f"{_HEAD} host vsys cmd admin client result path before_change_detail after_change_detail seqno actionflags "
        f"{_GROUPS} dg_id comment _ high_res_timestamp"
    ),
    "GLOBALPROTECT": (
        f"{_HEAD} vsys eventid stage auth_method tunnel_type srcuser srcregion machinename public_ip public_ipv6 "
        "private_ip private_ipv6 hostid serialnumber client_ver client_os client_os_ver repeatcnt reason error opaque "
        "status location login_duration connect_method error_code portal seqno actionflags high_res_timestamp "
        f"selection_type response_time priority attempted_gateways gateway {_GROUPS} vsys_id"
    ),
    "HIPMATCH": (
        f"{_HEAD} srcuser vsys machinename os src matchname repeatcnt matchtype _ _ seqno actionflags "
        f"{_GROUPS} vsys_id "
        "srcipv6 hostid serialnumber mac high_res_timestamp"
    ),
    "USERID": (
        f"{_HEAD} vsys ip user datasourcename eventid repeatcnt timeout sport dport datasource datasourcetype seqno "
        f"actionflags {_GROUPS} vsys_id factortype factorcompletiontime factorno ugflags userbysource tag_name "
        "high_res_timestamp origindatasource _ cluster_name"
    ),
    "AUTHENTICATION": (
        f"{_HEAD} vsys ip user normalize_user object authpolicy repeatcnt authid vendor logset serverprofile desc "
        f"clienttype event factorno seqno actionflags {_GROUPS} vsys_id authproto rule_uuid high_res_timestamp "
        "src_category src_profile src_model src_vendor src_osfamily src_osversion src_host src_mac region _ user_agent "
        "sessionid cluster_name"
    ),
    "DECRYPTION": _HEAD,
    "CORRELATION": _HEAD,
    "IPTAG": _HEAD,
    "GTP": _HEAD,
    "SCTP": _HEAD,
    "START": _HEAD,
    "END": _HEAD,
}


def _numbered(names: str) -> list[str]:
    """The names of a list; what means nothing gets a name by its place."""
    return [f"{FILLER}{place}" if name == "_" else name for place, name in enumerate(names.split(), start=1)]


CONFIG_DETAILS: Final = 14
"""Where `before_change_detail` and `after_change_detail` stand in a CONFIG log (from 0), in custom formats."""

COLUMNS: Final[dict[str, list[str]]] = {log: _numbered(names) for log, names in _LISTS.items()}
"""Type -> its columns. Of the types at the end only the head is named, and the rest is `field_N`."""
